"""What the benchmark of the pair similarities compares: the forms, their inputs and their work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, TypeAlias

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from distributed_pretrain.alignment.gloria import gloria_similarity
from distributed_pretrain.alignment.limitr import LimitrSimilarity
from distributed_pretrain.alignment.variants import Variant
from distributed_pretrain.benchmark import harness
from distributed_pretrain.benchmark.pair_loops import gloria_loop, limitr_loop
from distributed_pretrain.losses.contrastive import symmetric_cross_entropy

Precision: TypeAlias = Literal["float32", "bfloat16"]

LIMITR_TEMPERATURE = GLORIA_TEMPERATURE = 0.1


@dataclass(frozen=True)
class Form:
    """One way to the loss; `padded`: reports as long as real ones are, all else being equal."""

    name: Literal["loop", "paper", "authors", "gloria"]
    precision: Precision
    padded: bool = False
    target_time_ratio: float | None = field(default=None, compare=False)

    @property
    def title(self) -> str:
        """As the table shows it."""
        return f"{self.name}, {self.precision}" + (", real lengths" if self.padded else "")

    @property
    def in_float32(self) -> Form:
        """What its roundings are measured against."""
        return replace(self, precision="float32")


FORMS = {
    "limitr": (
        Form("loop", "float32"),
        Form("paper", "float32", target_time_ratio=1 / 4),
        Form("paper", "bfloat16", target_time_ratio=1 / 7),
        Form("authors", "float32", target_time_ratio=0.8),
        Form("authors", "bfloat16", target_time_ratio=0.4),
        Form("paper", "float32", padded=True),
        Form("authors", "float32", padded=True),
    ),
    "gloria": (
        Form("loop", "float32"),
        Form("gloria", "float32", target_time_ratio=0.6),
        Form("gloria", "bfloat16", target_time_ratio=0.3),
        Form("gloria", "float32", padded=True),
    ),
}


class PairBenchmarkConfig(harness.TurnsConfig):
    """Sizes of one process; padded forms have reports of `shortest_report` to `words` words."""

    method: Literal["limitr", "gloria"]
    batch_size: PositiveInt = 16
    big_batch: PositiveInt | None = Field(48, description="memory of our forms alone; null: none")
    regions: PositiveInt = 361
    words: PositiveInt = 97
    shortest_report: PositiveInt = 20
    dim: PositiveInt = 768
    chunk_size: PositiveInt | None = Field(None, description="pairs at a time; null: the default")


class Step:
    """Forward and backward from `leaves`, regions and words first."""

    def __init__(self, leaves: Sequence[Tensor], loss: Callable[[], Tensor]) -> None:
        self._leaves = leaves
        self._loss = loss
        self._value = 0.0

    def run(self) -> None:
        """Once, with gradients made anew: their allocation is part of a step."""
        for leaf in self._leaves:
            leaf.grad = None
        loss = self._loss()
        loss.backward()
        self._value = loss.item()

    def errors(self, exact: Step) -> tuple[float, float]:
        """Of the last runs, relative to `exact`: the loss's error and the gradient vector's."""
        gradient = self._gradient()
        error = (gradient - exact._gradient()).norm() / exact._gradient().norm()
        return abs(self._value / exact._value - 1), error.item()

    def _gradient(self) -> Tensor:
        """Of regions and words, as one vector."""
        gradients = [leaf.grad for leaf in self._leaves[:2] if leaf.grad is not None]
        return torch.cat([each.flatten() for each in gradients])


def pair_step(form: Form, config: PairBenchmarkConfig, batch: int) -> Step:
    """A form on random regions and words whose raw scores spread by about 1."""
    generator = torch.Generator().manual_seed(0)
    regions, words = (
        torch.randn(batch, tokens, config.dim, generator=generator)
        .mul_(config.dim**-0.25)
        .requires_grad_()
        for tokens in (config.regions, config.words)
    )
    word_mask = torch.arange(config.words) < report_lengths(form, config, batch)[:, None]
    leaves, is_loop = [regions, words], form.name == "loop"
    compare: Callable[..., Tensor | tuple[Tensor, Tensor]]
    if config.method == "gloria":
        ours = partial(gloria_similarity, chunk_size=config.chunk_size)
        compare, temperature = gloria_loop if is_loop else ours, GLORIA_TEMPERATURE
    else:
        torch.manual_seed(0)
        # In eval mode: dropout is off on both sides.
        variant: Variant = "paper" if form.name == "paper" else "authors"
        module = LimitrSimilarity(config.dim, variant, config.chunk_size).eval()
        leaves += module.parameters()
        compare = partial(limitr_loop, module) if is_loop else module
        temperature = LIMITR_TEMPERATURE

    def loss() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=form.precision == "bfloat16"):
            compared = compare(regions, words, word_mask)
            sides = (compared,) if isinstance(compared, Tensor) else compared
            losses = [symmetric_cross_entropy(side, temperature=temperature) for side in sides]
            return torch.stack(losses).sum()

    return Step(leaves, loss)


def report_lengths(form: Form, config: PairBenchmarkConfig, batch: int) -> Tensor:
    """Words of each report: all of them, or lengths spread evenly, in a shuffled order."""
    if not form.padded:
        return torch.full((batch,), config.words)
    spread = torch.linspace(config.shortest_report, config.words, batch).round().long()
    return spread[torch.randperm(batch, generator=torch.Generator().manual_seed(0))]


def form_gflops(form: Form, config: PairBenchmarkConfig) -> float:
    """What the matrix products of a form's forward and backward take, recomputing included."""
    regions, dim, batch = config.regions, config.dim, config.batch_size
    words = int(report_lengths(form, config, batch).sum())
    crossing = 2 * batch * regions * words * dim
    gate = 2 * batch * (regions * batch + words) * dim**2
    if config.method == "gloria":
        squares = 2 * batch * regions**2 * words
        flops = 6 * crossing if form.name == "loop" else 4 * crossing + 3 * squares
    elif form.name == "loop":
        # Scores and what is attended, in each direction; twice as much in backward.
        flops = 3 * (4 * crossing + gate)
    else:
        # Three products, again in backward, and two gradients of each.
        flops = 12 * crossing + (4 * gate if form.name == "authors" else 0)
    return flops / 1e9

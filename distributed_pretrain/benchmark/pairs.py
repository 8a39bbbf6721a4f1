"""The pair similarities of LIMITR and GLoRIA beside a loop over reports, in one run.

Everything is forward and backward, from regions and words to their gradients, the local external
loss included. The loop is the authors' algorithm in float32 with all words real. How far a form is
from its floor is told by the machine's own rate for large matrix products, measured in the same
turns.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from data_shards.processes import available_cores
from data_shards.profiles import Config
from distributed_pretrain.alignment.gloria import gloria_similarity
from distributed_pretrain.alignment.limitr import LimitrSimilarity
from distributed_pretrain.alignment.pairwise.products import (
    bfloat16_even_if_slow,
    cpu_multiplies_bfloat16,
)
from distributed_pretrain.benchmark import harness
from distributed_pretrain.benchmark.pair_loops import gloria_loop, limitr_loop
from distributed_pretrain.losses.contrastive import symmetric_cross_entropy

Precision: TypeAlias = Literal["float32", "bfloat16"]
# Forward and backward: the loss, and the gradients of regions, words and parameters.
Step: TypeAlias = Callable[[], tuple[Tensor, ...]]


class Form(NamedTuple):
    """One way to the loss; `padded`: reports as long as real ones are, all else being equal."""

    name: Literal["loop", "paper", "authors", "gloria"]
    precision: Precision = "float32"
    padded: bool = False

    @property
    def title(self) -> str:
        """As the table shows it."""
        return f"{self.name}, {self.precision}" + (", real lengths" if self.padded else "")


# The loop first; beside each form the share of the loop's time that is asked of it.
FORMS: dict[str, dict[Form, float | None]] = {
    "limitr": {
        Form("loop"): None,
        Form("paper"): 1 / 4,
        Form("paper", "bfloat16"): 1 / 7,
        Form("authors"): 0.8,
        Form("authors", "bfloat16"): 0.4,
        Form("paper", padded=True): None,
        Form("authors", padded=True): None,
    },
    "gloria": {
        Form("loop"): None,
        Form("gloria"): 0.6,
        Form("gloria", "bfloat16"): 0.3,
        Form("gloria", padded=True): None,
    },
}
TARGET_MEMORY_RATIO = 1 / 8
TARGET_BIG_BATCH_GIB = 3
TARGET_LOSS_ERROR = 2e-2
TARGET_GRADIENT_ERROR = 5e-2

TEMPERATURE = 0.1
RATE_MATRIX = 2048
RATE_REPEATS = 4
WARM_UP_BATCH = 2


class Settings(Config):
    """Sizes of one process; with `big_batch` the memory of our forms alone is measured.

    Real reports have from a fifth of `words` to all of them.
    """

    method: Literal["limitr", "gloria"]
    batch_size: PositiveInt = 16
    big_batch: PositiveInt = 48
    regions: PositiveInt = 361
    words: PositiveInt = 97
    dim: PositiveInt = 768
    repeats: PositiveInt = 3
    threads: PositiveInt = Field(default_factory=available_cores)


def run(config: Settings) -> None:
    """Measure and print."""
    print(
        f"{config.method}: forward + backward, {config.batch_size} images x {config.batch_size} "
        f"reports, {config.regions} regions, {config.words} words, dim {config.dim}, "
        f"{config.threads} threads; median seconds of {config.repeats}\n"
        "  peaks are above the inputs, their gradients counted; the floor is the time of the\n"
        "  form's matrix products at the machine's rate for large ones"
    )
    forms = FORMS[config.method]
    loop, *_ = forms
    steps = {form: pair_step(form, config, config.batch_size) for form in forms}
    turns = measure(config, steps)
    rates = {key: statistics.median(each) for key, each in turns.items() if isinstance(key, str)}
    for precision, rate in rates.items():
        print(f"  large matrix products in {precision}: {rate:.0f} GFLOP/s")
    columns = {"form": "<32", "seconds": ">8.3f", "to loop (spread)": "<24"}
    table = harness.Table(columns | {"to floor": ">8.2f", "peak MiB": ">9.1f"})
    loop_peak = _peak_mib(loop, config, config.batch_size)
    targets = []
    for form, time_asked in forms.items():
        asked: dict[str, tuple[float, float]] = {}
        if form in turns:
            seconds, gigaflops = turns[form], form_gflops(form, config)
            to_loop = harness.Ratios(seconds, turns[loop])
            floors = [gigaflops / rate for rate in turns[form.precision]]
            to_floor = harness.Ratios(seconds, floors).median
            peak = loop_peak if form == loop else _peak_mib(form, config, config.batch_size)
            table.row(form.title, statistics.median(seconds), to_loop, to_floor, peak)
            if time_asked is not None:
                asked["time to loop"] = to_loop.median, time_asked
                asked["memory to loop"] = peak / max(loop_peak, 1e-6), TARGET_MEMORY_RATIO
                big_peak = _peak_mib(form, config, config.big_batch) / 1024
                asked[f"GiB at batch {config.big_batch}"] = big_peak, TARGET_BIG_BATCH_GIB
        if form.precision == "bfloat16":
            loss_error, gradient_error = _errors(steps[form], steps[Form(form.name)])
            asked["loss off float32 by"] = loss_error, TARGET_LOSS_ERROR
            asked["gradient off float32 by"] = gradient_error, TARGET_GRADIENT_ERROR
        targets += [harness.Target(f"{form.title}: {name}", *each) for name, each in asked.items()]
    figures = {"config": config.model_dump(), "gflops_per_second": rates, "rows": table.rows}
    harness.conclude(targets, figures)


def measure(config: Settings, steps: dict[Form, Step]) -> dict[Form | Precision, list[float]]:
    """Seconds of the forms, and GFLOP/s of large products by precision.

    Of bfloat16 on a CPU where it is slow a time would say nothing: only its roundings are seen.
    """
    torch.set_num_threads(config.threads)
    timed = [each for each in steps if each.precision == "float32" or cpu_multiplies_bfloat16()]
    if len(timed) < len(steps):
        print("  this CPU has no bfloat16 products: of those forms only the roundings are measured")
    measures: dict[Form | Precision, Callable[[], float]] = {
        form.precision: partial(_gflops_per_second, form.precision) for form in timed
    }
    measures |= {form: partial(harness.seconds_of, steps[form]) for form in timed}
    return harness.take_turns(measures, turns=config.repeats)


def pair_step(form: Form, config: Settings, batch: int, *, device: harness.Device = "cpu") -> Step:
    """A form on random regions and words whose raw scores spread by about 1."""
    generator = torch.Generator().manual_seed(0)
    regions, words = (
        torch.randn(batch, tokens, config.dim, generator=generator)
        .mul_(config.dim**-0.25)
        .to(device)
        .requires_grad_()
        for tokens in (config.regions, config.words)
    )
    word_mask = torch.arange(config.words) < report_lengths(form, config, batch)[:, None]
    word_mask = word_mask.to(device)
    leaves, is_loop = [regions, words], form.name == "loop"
    compare: Callable[..., Tensor | tuple[Tensor, Tensor]]
    if config.method == "gloria":
        compare = gloria_loop if is_loop else gloria_similarity
    else:
        torch.manual_seed(0)
        # In eval mode: dropout is off on both sides.
        module = LimitrSimilarity(config.dim, "paper" if form.name == "paper" else "authors").eval()
        module.to(device)
        leaves += module.parameters()
        compare = partial(limitr_loop, module) if is_loop else module

    def step() -> tuple[Tensor, ...]:
        with torch.autocast(device, torch.bfloat16, enabled=form.precision == "bfloat16"):
            compared = compare(regions, words, word_mask)
            sides = (compared,) if isinstance(compared, Tensor) else compared
            losses = [symmetric_cross_entropy(side, temperature=TEMPERATURE) for side in sides]
            loss = torch.stack(losses).sum()
        return loss, *torch.autograd.grad(loss, leaves)

    return step


def report_lengths(form: Form, config: Settings, batch: int) -> Tensor:
    """Words of each report: all of them, or lengths spread evenly, in a shuffled order."""
    if not form.padded:
        return torch.full((batch,), config.words)
    spread = torch.linspace(1 + config.words // 5, config.words, batch).round().long()
    return spread[torch.randperm(batch, generator=torch.Generator().manual_seed(0))]


def form_gflops(form: Form, config: Settings) -> float:
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


def _errors(step: Step, exact: Step) -> tuple[float, float]:
    """Relative to `exact`: the loss's error, and that of the vector of regions and words."""
    with bfloat16_even_if_slow():
        (loss, *gradients), (exact_loss, *exact_gradients) = step(), exact()
    gradient, exact_gradient = (
        torch.cat([each.flatten() for each in both[:2]]) for both in (gradients, exact_gradients)
    )
    error = (gradient - exact_gradient).norm() / exact_gradient.norm()
    return abs((loss / exact_loss).item() - 1), error.item()


def _gflops_per_second(precision: Precision) -> float:
    factor = torch.ones(RATE_MATRIX, RATE_MATRIX, dtype=getattr(torch, precision))
    # Once unmeasured, as the first product of a shape makes its plan.
    factor @ factor

    def multiply() -> None:
        for _ in range(RATE_REPEATS):
            factor @ factor

    return RATE_REPEATS * 2 * RATE_MATRIX**3 / harness.seconds_of(multiply) / 1e9


def _peak_mib(form: Form, config: Settings, batch: int) -> float:
    arguments = [(form, config, batch)]
    (peak,) = harness.in_fresh_processes(_peak_bytes, arguments, threads=config.threads)
    return peak / 2**20


def _peak_bytes(form: Form, config: Settings, batch: int) -> int:
    """The peak of one form above its inputs."""
    # The buffers of the libraries are not the form's.
    small = config.model_copy(update={"regions": 4, "words": 4, "dim": 8})
    pair_step(form, small, WARM_UP_BATCH)()
    return harness.peak_bytes_above_start(pair_step(form, config, batch))

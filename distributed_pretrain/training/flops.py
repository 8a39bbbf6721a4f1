"""Floating-point operations of a training step, and how much of the device's peak they are.

Counted are the model's own matrix products, convolutions and attention products, a multiply-add
as two operations. What is computed again to save memory is not counted (PaLM's model FLOPs
utilisation, arXiv 2204.02311, appendix B), and neither are element-wise operations, which a peak
rate of matrix units says nothing about.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten
from torch.utils.flop_counter import flop_registry

from distributed_pretrain.batch import Batch
from distributed_pretrain.methods.objective import Objective
from distributed_pretrain.training.settings import TrainingConfig

Arithmetic = Literal["bf16", "tf32", "float32"]

# (rows, sentences) of the steps that are counted. Batch norm needs two rows where its map is a
# single cell.
_PROBES = ((2, 1), (2, 2), (2, 3), (3, 1), (3, 2))
_MOST_SENTENCES = 3
# Cut shorter only for encoders that read less: [CLS], one token of a sentence and [SEP].
_TOKENS_A_SENTENCE = 16
_SHORTEST_SENTENCE = 3

# Dense rates of the makers' data sheets in 10^12 operations a second: bf16 with float32
# accumulation, TF32, float32 outside the tensor cores. The first pattern that matches counts.
_PEAKS: tuple[tuple[str, dict[Arithmetic, float]], ...] = (
    (r"\bMIG\b|\bLaptop\b", {}),
    (r"\bH200 NVL\b|\bH100 NVL\b", {"bf16": 835.5, "tf32": 417.5, "float32": 60.0}),
    (r"\bH100 PCIe\b", {"bf16": 756.0, "tf32": 378.0, "float32": 51.0}),
    (r"\bH100\b|\bH200\b", {"bf16": 989.4, "tf32": 494.7, "float32": 67.0}),
    (r"\bA100\b", {"bf16": 312.0, "tf32": 156.0, "float32": 19.5}),
    (r"\bA40\b", {"bf16": 149.7, "tf32": 74.8, "float32": 37.4}),
    (r"\bA10\b", {"bf16": 125.0, "tf32": 62.5, "float32": 31.2}),
    (r"\bL40S\b", {"bf16": 362.0, "tf32": 183.0, "float32": 91.6}),
    (r"\bRTX 4090$", {"bf16": 165.2, "tf32": 82.6, "float32": 82.6}),
    (r"\bV100-SXM2\b", {"float32": 15.7}),
    (r"\bV100-PCIE\b", {"float32": 14.0}),
)


def peak_flops_per_second(device_name: str, arithmetic: Arithmetic) -> float | None:
    """The published dense peak of a GPU in operations a second.

    `device_name` is `torch.cuda.get_device_name()`. None for CPUs, slices of a GPU, devices
    that are not in the table, and arithmetic a device does not have (bf16 on a V100).
    `float32` is for products outside the tensor cores; give `tf32` where torch may use them.
    """
    peaks = next((each for name, each in _PEAKS if re.search(name, device_name)), {})
    return peaks[arithmetic] * 1e12 if arithmetic in peaks else None


def device_peak(training: TrainingConfig, device: torch.device) -> float | None:
    """The peak that `mfu` is a share of: as configured, or that of the device where it is known."""
    if training.peak_teraflops is not None:
        return training.peak_teraflops * 1e12
    if device.type != "cuda":
        return None
    arithmetic: Arithmetic = "bf16"
    if training.precision == "float32":
        arithmetic = "tf32" if torch.backends.cuda.matmul.allow_tf32 else "float32"
    return peak_flops_per_second(torch.cuda.get_device_name(device), arithmetic)


@dataclass(frozen=True)
class StepFlops:
    """Operations of one training step of one rank, as a polynomial of rows and tokens.

    With n = tokens / `tokens_a_sentence`: rows · (r0 + r1 n + r2 n²) + rows² · (p0 + p1 n), of
    which `per_row` = (r0, r1, r2) holds the encoders, their heads and all within a pair, and
    `per_pair` = (p0, p1) what compares all images with all reports.
    """

    per_row: tuple[float, ...] = (0.0, 0.0, 0.0)
    per_pair: tuple[float, ...] = (0.0, 0.0)
    tokens_a_sentence: int = _TOKENS_A_SENTENCE

    @classmethod
    def of(
        cls, objective: Objective, probe: Callable[..., Batch], *, max_tokens: int | None
    ) -> StepFlops:
        """The operations of forward, loss and backward of `objective`, frozen layers and all.

        Five small steps of a copy determine the polynomial exactly for reports of one sentence per
        16 tokens; what sentences cost beside their tokens is below 1% in LoVT. Their batches
        without padding are made by `probe(rows=, tokens=, tokens_a_sentence=)` on the objective's
        device. All ranks must call this together, since losses gather: the columns of the others
        are part of `per_pair`.
        """
        fitting = _TOKENS_A_SENTENCE if max_tokens is None else max_tokens // _MOST_SENTENCES
        length = max(_SHORTEST_SENTENCE, min(_TOKENS_A_SENTENCE, fitting))
        copied = copy.deepcopy(objective).train()

        def counted(rows: int, n: int) -> int:
            batch = probe(rows=rows, tokens=n * length, tokens_a_sentence=length)
            copied.zero_grad(set_to_none=True)
            return training_flops(lambda: copied.loss(copied(batch))["total"])

        counts = [counted(rows, n) for rows, n in _PROBES]
        powers = [_powers(rows, n) for rows, n in _PROBES]
        found = np.linalg.solve(np.array(powers, float), np.array(counts, float)).tolist()
        return cls(tuple(found[:3]), tuple(found[3:]), length)

    def per_step(self, *, rows: int, tokens: float) -> float:
        """Operations of a step with `rows` pairs on this rank, of `tokens` tokens on average."""
        powers = _powers(rows, tokens / self.tokens_a_sentence)
        return float(np.dot(self.per_row + self.per_pair, powers))


def _powers(rows: int, n: float) -> tuple[float, ...]:
    return rows, rows * n, rows * n**2, rows**2, rows**2 * n


def training_flops(compute: Callable[[], Tensor]) -> int:
    """Operations of `compute()`, a scalar, and of its backward pass.

    Products are counted and not computed: their results are zeros, so values and gradients mean
    nothing, and the count costs what the element-wise operations cost. Attention counts as its
    two products, `torch.utils.checkpoint` once. The state of the random generators is kept.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    # Flash kernels recompute the scores in backward, which are not the model's own operations.
    with torch.random.fork_rng(devices), sdpa_kernel(SDPBackend.MATH), _ProductCounter() as counter:
        loss = compute()
        counter.in_backward = True
        loss.backward()
    return int(counter.flops)


class _ProductCounter(TorchDispatchMode):
    """Adds up the operations of products, and replaces each product by zeros of its shape."""

    def __init__(self) -> None:
        super().__init__()
        self.flops: int = 0
        self.in_backward = False

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        formula = _formula(func)
        if formula is None:
            return func(*args, **kwargs)
        result = func(*args, **kwargs) if func._schema.is_mutable else _zeros(func, args, kwargs)
        # Backward itself runs without gradient: with it, checkpointing computes forward again.
        if not (self.in_backward and torch.is_grad_enabled()):
            self.flops += formula(*args, **kwargs, out_val=result)
        return result


def _zeros(func: Any, args: Any, kwargs: Any) -> Any:
    """Zeros in the place of what `func` returns."""
    values, structure = tree_flatten((args, kwargs))
    device = next(each.device for each in values if isinstance(each, Tensor))
    described = tuple(_Like.of(each) if isinstance(each, Tensor) else each for each in values)
    results = _results(func, structure, described)
    return tree_map_only(_Like, lambda like: like.empty(device).zero_(), results)


@dataclass(frozen=True, slots=True)
class _Like:
    """What a tensor is but for its values and its device."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> _Like:
        return cls(tensor.shape, tensor.stride(), tensor.dtype)

    def empty(self, device: torch.device) -> Tensor:
        return torch.empty_strided(self.shape, self.strides, dtype=self.dtype, device=device)


# An encoder's layers are alike, and torch takes a quarter of a millisecond to tell a shape.
@lru_cache(1024)
def _results(func: Any, structure: Any, described: tuple[Any, ...]) -> Any:
    """What `func` returns, a `_Like` for each tensor."""
    meta = torch.device("meta")
    values = [each.empty(meta) if isinstance(each, _Like) else each for each in described]
    args, kwargs = tree_unflatten(values, structure)
    return tree_map_only(Tensor, _Like.of, func(*args, **kwargs))


@cache
def _formula(func: Any) -> Callable[..., int] | None:
    """How torch counts the operations of a product, in place or not; None for anything else."""
    packet = func.overloadpacket
    out_of_place = getattr(torch.ops.aten, packet.__name__.removesuffix("_"), None)
    formula: Callable[..., int] | None = flop_registry.get(packet, flop_registry.get(out_of_place))
    return formula

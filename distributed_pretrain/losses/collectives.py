"""The only file that talks to other ranks: gather and sum with exact gradients.

With L = (1/N) Σ_r L_r over N ranks, the gradient that reaches a gathered (or summed) tensor on
one rank is that of its own L_r alone. Adding these over the ranks in backward, and letting DDP
average the parameters' gradients, gives dL/dθ with factor 1. An averaging backward would shrink
it by N, and a gather without gradient has the same loss and the wrong direction.

Every function is the identity in one process, and each rank must call them in the same order
with tensors of the same shape.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable


def world_size() -> int:
    """The number of ranks, 1 when torch.distributed is not initialised."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


def gather_rows(rows: Shaped[Tensor, "batch ..."]) -> Shaped[Tensor, "all_ranks ..."]:
    """The rows of all ranks, rank 0's first. The gradient is summed over the ranks."""
    if world_size() == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows)
    return gathered


def sum_over_ranks(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Σ over the ranks of `values`. The gradient is summed over the ranks too."""
    if world_size() == 1:
        return values
    total: Tensor = _SumOverRanks.apply(values)
    return total


def mean_over_samples(
    values: Float[Tensor, " batch"],
    sample_mask: Bool[Tensor, " batch"] | None,
    *,
    across_ranks: bool = True,
) -> Float[Tensor, ""]:
    """The mean of the real samples' `values`, 0 when there are none.

    Ranks may hold different numbers of real samples: each divides by the mean number over the
    ranks, which weights it by N * count_r / Σ count, so that the average over the ranks is the
    mean over all samples. `across_ranks=False` divides by this rank's number.
    """
    if sample_mask is None:
        return values.mean()
    count = sample_mask.sum().to(values.dtype)
    ranks = world_size() if across_ranks else 1
    total = sum_over_ranks(count) if across_ranks else count
    return torch.where(sample_mask, values, 0.0).sum() * (ranks / total.clamp(min=1))


def mean_over_ranks(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The element-wise mean over ranks, without gradient."""
    return values.detach() if world_size() == 1 else _all_reduced(values.detach()) / world_size()


def copy_from_main(tensors: Iterable[Tensor]) -> None:
    """Overwrite `tensors` (running statistics, say) with those of rank 0."""
    if world_size() > 1:
        for tensor in tensors:
            distributed.broadcast(tensor, src=0)


def wait_for_all() -> None:
    """Return when every rank has come here."""
    if world_size() > 1:
        distributed.barrier()


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, rows: Tensor) -> Tensor:
        gathered = rows.new_empty(world_size() * rows.shape[0], *rows.shape[1:])
        distributed.all_gather_into_tensor(gathered, rows.contiguous())
        return gathered

    @staticmethod
    @once_differentiable
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        own = gradient.new_empty(gradient.shape[0] // world_size(), *gradient.shape[1:])
        distributed.reduce_scatter_tensor(own, gradient.contiguous())
        return own


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, values: Tensor) -> Tensor:
        return _all_reduced(values)

    @staticmethod
    @once_differentiable
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        return _all_reduced(gradient)


def _all_reduced(values: Tensor) -> Tensor:
    total = values.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total)
    return total

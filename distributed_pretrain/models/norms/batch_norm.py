"""Mean and variance of the rows of one rank or of all ranks, and what batch norms do with them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distributed_pretrain.losses.precision import zero_where_padded
from distributed_pretrain.ranks import sum_over_ranks, world_size


@dataclass(frozen=True)
class BatchStatistics:
    """Mean and biased variance of each channel, and the number of rows they were taken over.

    Without any row mean and variance are 0.
    """

    mean: Float[Tensor, " dim"]
    variance: Float[Tensor, " dim"]
    count: Float[Tensor, ""]


def batch_statistics(
    rows: Float[Tensor, "*rows dim"],
    mask: Bool[Tensor, "*rows"] | None = None,
    *,
    across_ranks: bool,
) -> BatchStatistics:
    """Statistics of the real rows (mask True), with gradient to the rows of every rank.

    `rows` holds zeros where the mask is False. `across_ranks` takes the rows of all ranks, which
    may hold different numbers of them, or none, at the price of one all-reduce of 2 x dim + 1
    float64 numbers, and one more in backward; every rank must then call it.
    """
    row_dims = tuple(range(rows.dim() - 1))
    count = rows.new_tensor(rows[..., 0].numel()) if mask is None else mask.sum().to(rows.dtype)
    mean = rows.sum(dim=row_dims) / count.clamp(min=1)
    # The squares are summed about the mean: E[x²] - E[x]² cancels when |mean| >> deviation.
    squares = zero_where_padded(rows - mean, mask).square().sum(dim=row_dims)
    if not across_ranks or world_size() == 1:
        return BatchStatistics(mean, squares / count.clamp(min=1), count)

    # The ranks' means differ, so their squares are added about 0. In float64 that cancellation
    # costs float32 rows nothing, and a second all-reduce, about the common mean, is saved.
    own_count, own_mean = count.double(), mean.double()
    own_squares = squares.double() + own_count * own_mean.square()
    own = torch.cat([own_count * own_mean, own_squares, own_count.unsqueeze(0)])
    total, total_squares, total_count = sum_over_ranks(own).split([len(mean), len(mean), 1])
    divisor = total_count.clamp(min=1)
    common_mean = total / divisor
    variance = (total_squares / divisor - common_mean.square()).clamp(min=0)
    return BatchStatistics(
        common_mean.to(rows.dtype), variance.to(rows.dtype), total_count[0].to(rows.dtype)
    )


def normalise(
    rows: Float[Tensor, "*rows dim"],
    mean: Float[Tensor, " dim"],
    variance: Float[Tensor, " dim"],
    *,
    weight: Float[Tensor, " dim"],
    bias: Float[Tensor, " dim"],
    eps: float,
) -> Float[Tensor, "*rows dim"]:
    """weight * (rows - mean) / sqrt(variance + eps) + bias."""
    scale = weight * torch.rsqrt(variance + eps)
    return torch.addcmul(bias - mean * scale, rows, scale)


@torch.no_grad()
def update_running_statistics(
    running_mean: Float[Tensor, " dim"],
    running_var: Float[Tensor, " dim"],
    statistics: BatchStatistics,
    momentum: float,
) -> None:
    """Move the running mean and (unbiased) variance by `momentum` towards those of the batch.

    In place, as torch's batch norms do. No row anywhere says nothing about the distribution, and
    changes nothing.
    """
    count = statistics.count
    unbiased = statistics.variance * count / (count - 1).clamp(min=1)
    step = (count > 0).to(running_mean.dtype) * momentum
    running_mean.lerp_(statistics.mean.to(step.dtype), step)
    running_var.lerp_(unbiased.to(step.dtype), step)

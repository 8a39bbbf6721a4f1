"""Mean and variance of the rows of one rank or of all ranks, and what batch norms do with them."""

from __future__ import annotations

from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distributed_pretrain.losses.precision import RowMask, Rows, zero_where_padded
from distributed_pretrain.ranks import sum_over_ranks, world_size

BatchNorm: TypeAlias = nn.BatchNorm1d | nn.BatchNorm2d
Statistic: TypeAlias = Float[Tensor, " dim"]


def batch_statistics(
    rows: Rows, mask: RowMask | None = None, *, across_ranks: bool
) -> tuple[Statistic, Statistic, Float[Tensor, ""]]:
    """Mean, biased variance and number of the real rows (mask True); both 0 without any.

    With gradient to the rows of every rank. `rows` holds zeros where the mask is False.
    `across_ranks` takes the rows of all ranks, which may hold different numbers of them, or none,
    for one all-reduce of 2 x dim + 1 float64 numbers, and one more in backward.
    """
    row_dims = tuple(range(rows.dim() - 1))
    count = rows.new_tensor(rows[..., 0].numel()) if mask is None else mask.sum().to(rows.dtype)
    mean = rows.sum(dim=row_dims) / count.clamp(min=1)
    # The squares are summed about the mean: E[x²] - E[x]² cancels when |mean| >> deviation.
    squares = zero_where_padded(rows - mean, mask).square().sum(dim=row_dims)
    if not across_ranks or world_size() == 1:
        return mean, squares / count.clamp(min=1), count

    # The ranks' means differ, so their squares are added about 0. In float64 that cancellation
    # costs float32 rows nothing, and a second all-reduce, about the common mean, is saved.
    own_count, own_mean = count.double(), mean.double()
    own_squares = squares.double() + own_count * own_mean.square()
    own = torch.cat([own_count * own_mean, own_squares, own_count.unsqueeze(0)])
    total, total_squares, total_count = sum_over_ranks(own).split([len(mean), len(mean), 1])
    divisor = total_count.clamp(min=1)
    common_mean = total / divisor
    variance = (total_squares / divisor - common_mean.square()).clamp(min=0)
    return common_mean.to(rows.dtype), variance.to(rows.dtype), total_count[0].to(rows.dtype)


def batch_norm(
    layer: BatchNorm, rows: Rows, mask: RowMask | None = None, *, across_ranks: bool
) -> Rows:
    """The rows normalised as `batch_statistics` says, by `layer` in training mode.

    Its running mean and (unbiased) variance move towards those of the batch, as torch's do. No row
    anywhere says nothing about the distribution, and leaves them.
    """
    mean, variance, count = batch_statistics(rows, mask, across_ranks=across_ranks)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    assert layer.num_batches_tracked is not None
    assert layer.momentum is not None
    with torch.no_grad():
        unbiased = variance * count / (count - 1).clamp(min=1)
        step = (count > 0).to(layer.running_mean.dtype) * layer.momentum
        layer.running_mean.lerp_(mean.to(step.dtype), step)
        layer.running_var.lerp_(unbiased.to(step.dtype), step)
        layer.num_batches_tracked += 1
    return normalise(layer, rows, mean, variance)


def normalise(layer: BatchNorm, rows: Rows, mean: Statistic, variance: Statistic) -> Rows:
    """weight * (rows - mean) / sqrt(variance + eps) + bias, by `layer`'s weight, bias and eps."""
    scale = layer.weight * torch.rsqrt(variance + layer.eps)
    return torch.addcmul(layer.bias - mean * scale, rows, scale)

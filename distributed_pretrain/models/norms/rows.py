"""Normalisation of rows, of which some may be padding: over those of all ranks, or each alone."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from distributed_pretrain.losses.precision import (
    RowMask,
    Rows,
    at_least_float32,
    full_precision,
    zero_where_padded,
)
from distributed_pretrain.models.norms.groups import (
    BatchNorm,
    Moved,
    group_sizes,
    move,
    move_after_forward,
)
from distributed_pretrain.models.norms.kinds import Norm
from distributed_pretrain.ranks import sum_of_statistics, world_size

Statistic: TypeAlias = Float[Tensor, "*groups dim"]
Count: TypeAlias = Float[Tensor, "*groups"]
_Statistics: TypeAlias = Literal["sync", "local", "frozen"]
# Wu and He (ECCV 2018): 32 groups, or 16 channels a group.
_MOST_GROUPS = 32
_FEWEST_CHANNELS_A_GROUP = 16


def batch_statistics(
    rows: Rows, mask: RowMask | None = None, *, across_ranks: bool, grouped: bool = False
) -> tuple[Statistic, Statistic, Count]:
    """Mean, biased variance and number of the real rows (mask True); both 0 without any.

    With gradient to the rows of every rank. `rows` holds zeros where the mask is False. `grouped`
    takes its first dimension for groups, each with statistics of its own. `across_ranks` takes the
    rows of all ranks, which may hold different numbers of them, or none, for one all-reduce of
    2 x dim + 1 float64 numbers a group, and one more in backward.
    """
    row_dims = tuple(range(int(grouped), rows.dim() - 1))
    if mask is None:
        number = rows[..., 0].numel() // (len(rows) if grouped else 1)
        count = rows.new_full(rows.shape[: int(grouped)], number)
    else:
        count = mask.sum(dim=row_dims).to(rows.dtype)
    mean = rows.sum(dim=row_dims) / count.clamp(min=1).unsqueeze(-1)
    # The squares are summed about the mean: E[x²] - E[x]² cancels when |mean| >> deviation.
    centred = rows - _over_rows(mean, rows)
    squares = zero_where_padded(centred, mask).square().sum(dim=row_dims)
    if not across_ranks or world_size() == 1:
        return mean, squares / count.clamp(min=1).unsqueeze(-1), count

    common = over_ranks(mean, squares, count)
    common_mean, variance, total_count = (each.to(rows.dtype) for each in common)
    return common_mean, variance, total_count


def over_ranks(
    mean: Statistic, squares: Statistic, count: Count
) -> tuple[Statistic, Statistic, Count]:
    """Mean, biased variance and number of the rows of all ranks, in float64, of each group.

    `mean` and `count` are of this rank's, `squares` the sum of its squares about its mean; zeros
    where it has none. One all-reduce of 2 x dim + 1 numbers a group.
    """
    # The ranks' means differ, so their squares are added about 0. In float64 that cancellation
    # costs float32 rows nothing, and a second all-reduce, about the common mean, is saved.
    own_count, own_mean = count.double().unsqueeze(-1), mean.double()
    own_squares = squares.double() + own_count * own_mean.square()
    own = torch.cat([own_count * own_mean, own_squares, own_count], dim=-1)
    dim = mean.shape[-1]
    total, total_squares, total_count = sum_of_statistics(own).split([dim, dim, 1], dim=-1)
    divisor = total_count.clamp(min=1)
    common_mean = total / divisor
    variance = (total_squares / divisor - common_mean.square()).clamp(min=0)
    return common_mean, variance, total_count.squeeze(-1)


def batch_norm(
    layer: BatchNorm, rows: Rows, mask: RowMask | None = None, *, across_ranks: bool
) -> Rows:
    """The rows normalised as `batch_statistics` says, by `layer` in training mode, in their groups.

    `move_running_statistics` keeps their means.
    """
    groups = len(group_sizes(len(rows)))
    if groups == 1:
        mean, variance, count = batch_statistics(rows, mask, across_ranks=across_ranks)
        move_running_statistics(layer, mean, variance, count)
        return normalise(layer, rows, mean, variance)
    apart = rows.unflatten(0, (groups, -1))
    mask = None if mask is None else mask.unflatten(0, (groups, -1))
    mean, variance, count = batch_statistics(apart, mask, across_ranks=across_ranks, grouped=True)
    move_running_statistics(layer, mean, variance, count)
    return normalise(layer, apart, mean, variance).flatten(0, 1)


@torch.no_grad()
def move_running_statistics(
    layer: BatchNorm, mean: Statistic, variance: Statistic, count: Count
) -> None:
    """Move the layer's mean and (unbiased) variance towards those of a batch, as torch does.

    No row anywhere says nothing about the distribution, and leaves them. Those of groups are kept
    until the forward has ended.
    """
    assert layer.momentum is not None
    number = count.unsqueeze(-1)
    unbiased = variance * number / (number - 1).clamp(min=1)
    share = (count > 0).to(count.dtype) * layer.momentum
    if count.dim() == 0:
        move(layer, Moved(mean, unbiased, share))
    else:
        groups = zip(mean.unbind(), unbiased.unbind(), share.unbind(), strict=True)
        move_after_forward(layer, [Moved(*each) for each in groups])


def normalise(layer: BatchNorm, rows: Rows, mean: Statistic, variance: Statistic) -> Rows:
    """weight * (rows - mean) / sqrt(variance + eps) + bias, by `layer`'s weight, bias and eps."""
    scale = layer.weight * torch.rsqrt(variance + layer.eps)
    shift = layer.bias - mean * scale
    return torch.addcmul(_over_rows(shift, rows), rows, _over_rows(scale, rows))


def _over_rows(statistic: Statistic, rows: Rows) -> Tensor:
    """What is of each group beside its rows."""
    if statistic.dim() == 1:
        return statistic
    return statistic.view(len(statistic), *(1,) * (rows.dim() - 2), -1)


class MaskedBatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` for rows of which some are padding; equal to it when none is.

    Padding (mask False) reaches neither statistics nor gradients; its own output is finite and
    means nothing. `statistics`, in at least float32, are as `Norm` says: a new "frozen" layer
    starts as the identity but for eps. One row alone gives variance 0 instead of an error.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, dim: int, *, statistics: _Statistics = "sync") -> None:
        super().__init__(dim)
        self.statistics = statistics

    def forward(self, values: Rows, mask: RowMask | None = None) -> Rows:
        """The normalised rows, in the dtype of `values`."""
        with full_precision(values):
            rows = zero_where_padded(at_least_float32(values), mask)
            if self.training and self.statistics != "frozen":
                normalised = batch_norm(self, rows, mask, across_ranks=self.statistics == "sync")
            else:
                normalised = normalise(self, rows, self.running_mean, self.running_var)
            return normalised.to(values.dtype)


class RowGroupNorm(nn.GroupNorm):
    """Each row normalised over groups of its own channels, so that no row sees another.

    Up to 32 groups that divide `dim`, of at least 16 channels each: a row has no positions
    besides, and a group of a single value would always become 0.
    """

    def __init__(self, dim: int) -> None:
        most = min(_MOST_GROUPS, dim // _FEWEST_CHANNELS_A_GROUP)
        super().__init__(max((g for g in range(1, most + 1) if dim % g == 0), default=1), dim)

    def forward(self, values: Rows, mask: RowMask | None = None) -> Rows:
        """The normalised rows, in the dtype of `values`.

        Rows whose mask is False come out finite, mean nothing and get no gradient.
        """
        with full_precision(values):
            rows = zero_where_padded(at_least_float32(values), mask)
            normalised = super().forward(rows.reshape(-1, self.num_channels))
            return normalised.view(rows.shape).to(values.dtype)


def row_norm(norm: Norm, dim: int) -> MaskedBatchNorm | RowGroupNorm:
    """A layer that normalises rows (..., dim), called with the rows and the mask of real ones."""
    return RowGroupNorm(dim) if norm == "group" else MaskedBatchNorm(dim, statistics=norm)

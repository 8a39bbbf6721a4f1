"""Normalisation of rows of which some are padding: of batches, and of single rows."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import Tensor, nn

from distributed_pretrain.losses.precision import (
    RowMask,
    Rows,
    at_least_float32,
    full_precision,
    zero_where_padded,
)
from distributed_pretrain.models.norms.batch_norm import batch_norm, normalise
from distributed_pretrain.models.norms.kinds import Norm

_Statistics: TypeAlias = Literal["sync", "local", "frozen"]
# Wu and He (ECCV 2018): 32 groups, or 16 channels a group.
_MOST_GROUPS = 32
_FEWEST_CHANNELS_A_GROUP = 16


class MaskedBatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` for rows of which some are padding; equal to it when none is.

    Padding (mask False) reaches neither statistics nor gradients; its own output is finite and
    means nothing. `statistics` are as `Norm` says: a new "frozen" layer starts as the identity but
    for eps. One row alone gives variance 0 instead of an error.
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

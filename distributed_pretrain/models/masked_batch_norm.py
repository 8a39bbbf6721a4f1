"""Batch normalisation over real rows only, with statistics shared by all ranks."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from distributed_pretrain.losses.collectives import sum_over_ranks
from distributed_pretrain.losses.precision import (
    at_least_float32,
    full_precision,
    zero_where_padded,
)


class MaskedBatchNorm(nn.Module):
    """`nn.BatchNorm1d` for rows of which some are padding; equal to it when none is.

    Padding (mask False) reaches neither statistics nor gradients; its own output is finite and
    means nothing. With `sync` the statistics are those of the real rows of all ranks, which may
    hold different numbers of them, or none; unlike nn.SyncBatchNorm it also runs on CPUs. One
    row alone gives variance 0 instead of an error. Statistics are taken in at least float32.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self, dim: int, *, eps: float = 1e-5, momentum: float = 0.1, sync: bool = True
    ) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.sync = sync
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(
        self, values: Float[Tensor, "*rows dim"], mask: Bool[Tensor, "*rows"] | None = None
    ) -> Float[Tensor, "*rows dim"]:
        """The normalised rows, in the dtype of `values`."""
        with full_precision(values):
            rows = zero_where_padded(at_least_float32(values), mask)
            if self.training:
                mean, variance = self._batch_statistics(rows, mask)
            else:
                mean, variance = self.running_mean, self.running_var
            scale = self.weight * torch.rsqrt(variance + self.eps)
            return (rows * scale + (self.bias - mean * scale)).to(values.dtype)

    def _batch_statistics(self, rows: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of the real rows; updates the running ones."""
        row_dims = tuple(range(rows.dim() - 1))
        own_count = (
            rows.new_tensor(rows[..., 0].numel()) if mask is None else mask.sum().to(rows.dtype)
        )
        own_sums = torch.cat([rows.sum(dim=row_dims), own_count.unsqueeze(0)])
        sums = self._over_ranks(own_sums)
        count = sums[-1].detach()
        mean = sums[:-1] / count.clamp(min=1)
        # The squares are summed about the mean: E[x²] - E[x]² cancels when |mean| >> deviation.
        centred = zero_where_padded(rows - mean, mask)
        variance = self._over_ranks(centred.square().sum(dim=row_dims)) / count.clamp(min=1)
        self._update_running(mean.detach(), variance.detach(), count)
        return mean, variance

    def _over_ranks(self, sums: Tensor) -> Tensor:
        return sum_over_ranks(sums) if self.sync else sums

    @torch.no_grad()
    def _update_running(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        unbiased = variance * count / (count - 1).clamp(min=1)
        # No row anywhere says nothing about the distribution.
        step = (count > 0).to(self.running_mean.dtype) * self.momentum
        self.running_mean.lerp_(mean.to(step.dtype), step)
        self.running_var.lerp_(unbiased.to(step.dtype), step)
        self.num_batches_tracked += 1

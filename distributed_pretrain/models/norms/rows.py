"""Batch normalisation over real rows only."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from distributed_pretrain.losses.precision import (
    at_least_float32,
    full_precision,
    zero_where_padded,
)
from distributed_pretrain.models.norms.batch_statistics import (
    batch_statistics,
    normalise,
    update_running_statistics,
)


class MaskedBatchNorm(nn.Module):
    """`nn.BatchNorm1d` for rows of which some are padding; equal to it when none is.

    Padding (mask False) reaches neither statistics nor gradients; its own output is finite and
    means nothing. With `statistics` "sync" they are those of the real rows of all ranks, which
    may hold different numbers of them, or none; unlike nn.SyncBatchNorm it also runs on CPUs.
    "local" are those of this rank's rows, "frozen" the running ones, in training too: a new
    layer then starts as the identity (but for eps), with a trainable scale and shift. One row
    alone gives variance 0 instead of an error. Statistics are taken in at least float32.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        dim: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        statistics: Literal["sync", "local", "frozen"] = "sync",
    ) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.statistics = statistics
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
            mean, variance = self.running_mean, self.running_var
            if self.training and self.statistics != "frozen":
                batch = batch_statistics(rows, mask, across_ranks=self.statistics == "sync")
                update_running_statistics(mean, variance, batch, self.momentum)
                self.num_batches_tracked += 1
                mean, variance = batch.mean, batch.variance
            normalised = normalise(
                rows, mean, variance, weight=self.weight, bias=self.bias, eps=self.eps
            )
            return normalised.to(values.dtype)

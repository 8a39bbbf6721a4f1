"""The choice of normalisation, for feature maps and for the rows of projection heads."""

from __future__ import annotations

from math import gcd
from typing import Literal, TypeAlias

from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from distributed_pretrain.models.norms.masked_batch_norm import MaskedBatchNorm
from distributed_pretrain.models.norms.row_group_norm import RowGroupNorm
from distributed_pretrain.models.norms.sync_batch_norm import SyncBatchNorm2d

Norm: TypeAlias = Literal["sync", "local", "frozen", "group"]
"""Where a norm's statistics come from, which decides what a run on several ranks computes.

sync    Batch norm over the real rows (or positions) of all ranks: outputs, gradients and running
        statistics are those of one process with the whole batch, on gloo as on NCCL, for one
        exchange of 2 x channels + 1 numbers a layer in forward and one in backward. Accumulation
        still takes the statistics of one micro-batch at a time.
local   Batch norm over this rank's own rows: nothing is exchanged, but the result depends on the
        number of ranks. On 4 ranks the gradient's cosine to that of the whole batch was 0.907
        in a trial. In one process it is the same as `sync`: what LoVT's authors trained with, on
        their one GPU.
frozen  Batch norm with fixed running statistics: exact under any split and accumulation, cheap,
        and sensible with the statistics of pretrained weights only. The image encoder's scale
        and shift are fixed too; those of a head are trained, and as a new head's statistics are
        mean 0 and variance 1, its norm starts as the identity and never whitens anything.
group   Group norm, within each sample (or row): no batch statistics at all, so exact under any
        split and under gradient-cached accumulation. Another function than batch norm: weights
        pretrained with one load (scale and shift), but want retraining.
"""


def map_norm(
    norm: Norm, channels: int, *, eps: float = 1e-5, momentum: float = 0.1
) -> SyncBatchNorm2d | nn.BatchNorm2d | FrozenBatchNorm2d | nn.GroupNorm:
    """A layer that normalises maps (batch, channels, rows, columns).

    Its parameters and statistics have nn.BatchNorm2d's names, as far as it has them.
    """
    if norm == "sync":
        return SyncBatchNorm2d(channels, eps, momentum)
    if norm == "local":
        return nn.BatchNorm2d(channels, eps, momentum)
    if norm == "frozen":
        return FrozenBatchNorm2d(channels, eps)
    return nn.GroupNorm(gcd(32, channels), channels, eps)


def row_norm(norm: Norm, dim: int) -> MaskedBatchNorm | RowGroupNorm:
    """A layer that normalises rows (..., dim), called with the rows and the mask of real ones."""
    if norm == "group":
        return RowGroupNorm(dim)
    return MaskedBatchNorm(dim, statistics=norm)


def exchange_batch_norms(backbone: nn.Module, norm: Norm) -> int:
    """Replace every nn.BatchNorm2d within `backbone` by the layer of `norm`; their number.

    Its eps and momentum, scale, shift and statistics go over to the new layer where that has them.
    """
    exchanged = 0
    for layer in list(backbone.modules()):
        for name, child in layer.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(layer, name, _like(child, norm))
                exchanged += 1
    return exchanged


def _like(batch_norm: nn.BatchNorm2d, norm: Norm) -> nn.Module:
    assert batch_norm.momentum is not None, "no torchvision model has a cumulative average"
    new = map_norm(norm, batch_norm.num_features, eps=batch_norm.eps, momentum=batch_norm.momentum)
    kept = new.state_dict().keys() & batch_norm.state_dict().keys()
    new.load_state_dict({name: batch_norm.state_dict()[name] for name in kept})
    return new

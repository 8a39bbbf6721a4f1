"""The choice of normalisation, for feature maps and for the rows of projection heads."""

from __future__ import annotations

from math import gcd

from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from distributed_pretrain.models.norms.kinds import Norm
from distributed_pretrain.models.norms.masked_batch_norm import MaskedBatchNorm
from distributed_pretrain.models.norms.row_group_norm import RowGroupNorm
from distributed_pretrain.models.norms.sync_batch_norm import SyncBatchNorm2d


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
    assert batch_norm.momentum is not None, "no model has a cumulative average"
    new = map_norm(norm, batch_norm.num_features, eps=batch_norm.eps, momentum=batch_norm.momentum)
    kept = new.state_dict().keys() & batch_norm.state_dict().keys()
    new.load_state_dict({name: batch_norm.state_dict()[name] for name in kept})
    return new

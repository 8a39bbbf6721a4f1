"""Normalisation of feature maps: the layers of each kind, which take the place of batch norms."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from typing import TypeAlias, TypeVar

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from distributed_pretrain.losses.precision import full_precision
from distributed_pretrain.models.norms.groups import group_sizes
from distributed_pretrain.models.norms.kinds import Norm
from distributed_pretrain.models.norms.synchronised import sync_batch_norm
from distributed_pretrain.ranks import world_size

_Maps: TypeAlias = Float[Tensor, "batch channels rows columns"]
_ModuleT = TypeVar("_ModuleT", bound=nn.Module)


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, by state dict and by function, over the maps of each group of this rank.

    Groups are those of `models.norms.groups`, commonly one.
    """

    across_ranks = False

    def forward(self, input: _Maps) -> _Maps:
        """The normalised maps, in the dtype of `input`; statistics in at least float32."""
        across_ranks = self.across_ranks and world_size() > 1
        if not self.training or not (across_ranks or len(group_sizes(len(input))) > 1):
            return super().forward(input)
        with full_precision(input):
            normalised: _Maps = sync_batch_norm(self, input, across_ranks=across_ranks)
            return normalised


class SyncBatchNorm2d(GroupedBatchNorm2d):
    """The same over the maps of all ranks in training.

    The ranks may hold different numbers of maps, or none: see `sync_batch_norm`.
    """

    across_ranks = True


def exchange_batch_norms(backbone: nn.Module, norm: Norm) -> int:
    """Replace every nn.BatchNorm2d within `backbone` by the layer of `norm`; their number.

    Its eps and momentum, scale, shift and statistics go over to the new layer where that has them,
    under their names.
    """
    return _exchange(backbone, nn.BatchNorm2d, lambda old: _like(old, norm))


def _like(old: nn.BatchNorm2d, norm: Norm) -> nn.Module:
    channels, eps = old.num_features, old.eps
    new: nn.Module
    if norm in ("sync", "local"):
        kind = SyncBatchNorm2d if norm == "sync" else GroupedBatchNorm2d
        new = kind(channels, eps, old.momentum)
    elif norm == "frozen":
        new = FrozenBatchNorm2d(channels, eps)
    else:
        new = nn.GroupNorm(gcd(32, channels), channels, eps)
    kept = new.state_dict().keys() & old.state_dict().keys()
    new.load_state_dict({name: old.state_dict()[name] for name in kept})
    return new


def _exchange(
    module: nn.Module, kind: type[_ModuleT], other: Callable[[_ModuleT], nn.Module]
) -> int:
    """Put `other` in the place of every layer of a kind within `module`; their number."""
    found = [
        (parent, name, layer)
        for parent in module.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, kind)
    ]
    for parent, name, layer in found:
        setattr(parent, name, other(layer))
    return len(found)

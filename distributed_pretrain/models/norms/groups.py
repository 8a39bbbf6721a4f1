"""Several micro-batches in one forward, whose batch norms see each of them by itself.

Also known as ghost batches (Hoffer et al., arXiv:1705.08741). A GPU encodes 128 images in little
more launches than 32; where a recipe normalises, and compares, 32 at a time, these are groups of
rows that lie one after another, and every batch norm takes the statistics of each. Running
statistics move when the forward has ended, group by group and in each in the order of the
forward: as if every group had gone through alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

BatchNorm: TypeAlias = nn.BatchNorm1d | nn.BatchNorm2d


class Seen(NamedTuple):
    """What a layer saw of one group: `numbers` of each channel, at least one.

    `inverse_deviation` is 1 / sqrt(variance + eps).
    """

    mean: Tensor
    inverse_deviation: Tensor
    numbers: int


class Moved(NamedTuple):
    """The same, where only the device knows whether there was anything: `share` is 0 if not.

    Running statistics move by that share of the way.
    """

    mean: Tensor
    unbiased_variance: Tensor
    share: Tensor


OfGroup: TypeAlias = Seen | Moved | None


@dataclass
class _Groups:
    count: int
    # Of rows that not every group has as many of.
    sizes: tuple[int, ...] | None = None
    # By layer, its calls; of each call the groups, None for one without rows.
    moved: dict[BatchNorm, list[Sequence[OfGroup]]] = field(default_factory=dict)


_groups: _Groups | None = None


@contextlib.contextmanager
def in_groups(count: int) -> Iterator[None]:
    """Around a forward in training: all rows lie in `count` groups of the same number of samples.

    1: there is nothing to tell apart.
    """
    global _groups
    assert _groups is None, "groups of groups"
    if count == 1:
        yield
        return
    _groups = _Groups(count)
    try:
        yield
        _move_running_statistics(_groups)
    finally:
        _groups = None


@contextlib.contextmanager
def of_chosen(chosen: Tensor) -> Iterator[None]:
    """Around layers that get only the rows where the mask `chosen` is True, in their order."""
    if _groups is None:
        yield
        return
    counts = chosen.view(_groups.count, -1).sum(dim=1)
    before, _groups.sizes = _groups.sizes, tuple(counts.tolist())
    try:
        yield
    finally:
        _groups.sizes = before


def group_sizes(rows: int) -> tuple[int, ...]:
    """How many of `rows` rows, one group after another, each group has; (rows,) without groups."""
    if _groups is None:
        return (rows,)
    if _groups.sizes is not None:
        assert sum(_groups.sizes) == rows
        return _groups.sizes
    assert rows % _groups.count == 0, f"{rows} rows in {_groups.count} groups"
    return (rows // _groups.count,) * _groups.count


def move_after_forward(layer: BatchNorm, moved: Sequence[OfGroup]) -> None:
    """Have the layer's running statistics moved, one item for each group, at the forward's end."""
    assert _groups is not None
    assert len(moved) == _groups.count
    _groups.moved.setdefault(layer, []).append(moved)


def cat_by_group(parts: Sequence[Tensor]) -> Tensor:
    """The rows of all parts, those of one group together; without groups `torch.cat`."""
    count = 1 if _groups is None else _groups.count
    chunks = zip(*(part.chunk(count) for part in parts), strict=True)
    return torch.cat([chunk for group in chunks for chunk in group])


def parts_by_group(rows: Tensor, parts: int) -> list[Tensor]:
    """What `cat_by_group` joined, apart."""
    count = 1 if _groups is None else _groups.count
    apart = rows.unflatten(0, (count, parts, -1))
    return [each.flatten(0, 1) for each in apart.unbind(dim=1)]


@torch.no_grad()
def _move_running_statistics(groups: _Groups) -> None:
    calls = max(map(len, groups.moved.values()), default=0)
    for group in range(groups.count):
        for call in range(calls):
            of_layers = {
                layer: of_calls[call][group]
                for layer, of_calls in groups.moved.items()
                if call < len(of_calls)
            }
            _move_seen({n: each for n, each in of_layers.items() if isinstance(each, Seen)})
            for layer, moved in of_layers.items():
                if isinstance(moved, Moved):
                    move(layer, moved)


def _move_seen(of_layers: dict[BatchNorm, Seen]) -> None:
    """A launch or two for all layers of a kind."""
    alike: dict[float | None, dict[BatchNorm, Seen]] = {}
    for layer, seen in of_layers.items():
        alike.setdefault(layer.momentum, {})[layer] = seen
    for momentum, some in alike.items():
        assert momentum is not None
        variances = torch._foreach_pow([seen.inverse_deviation for seen in some.values()], -2.0)
        torch._foreach_sub_(variances, [layer.eps for layer in some])
        unbiased = [seen.numbers / max(1, seen.numbers - 1) for seen in some.values()]
        torch._foreach_mul_(variances, unbiased)
        running = [statistic for layer in some for statistic in _running(layer)]
        targets = zip([seen.mean for seen in some.values()], variances, strict=True)
        torch._foreach_lerp_(running, [each for pair in targets for each in pair], momentum)
        torch._foreach_add_([_tracked(layer) for layer in some], 1)


@torch.no_grad()
def move(layer: BatchNorm, moved: Moved) -> None:
    """Move the layer's running statistics, as torch does."""
    mean, variance = _running(layer)
    share = moved.share.to(mean.dtype)
    mean.lerp_(moved.mean.to(share.dtype), share)
    variance.lerp_(moved.unbiased_variance.to(share.dtype), share)
    _tracked(layer).add_(moved.share > 0)


def _running(layer: BatchNorm) -> tuple[Tensor, Tensor]:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return layer.running_mean, layer.running_var


def _tracked(layer: BatchNorm) -> Tensor:
    assert layer.num_batches_tracked is not None
    return layer.num_batches_tracked

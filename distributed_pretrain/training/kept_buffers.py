"""Running statistics as they were, for a step that must leave none behind."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Bool
from torch import Tensor, nn


class KeptBuffers:
    """The values of `buffers` when this was made: one flat copy for each type of number.

    A ResNet-50 has 159 of them: to copy each by itself would be as many launches.
    """

    def __init__(self, buffers: Iterable[Tensor]) -> None:
        self._buffers: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for buffer in buffers:
            self._buffers.setdefault((buffer.dtype, buffer.device), []).append(buffer)
        self._kept = [_flat(group) for group in self._buffers.values()]

    @torch.no_grad()
    def put_back(self, *, where: Bool[Tensor, ""] | None = None) -> None:
        """Make all of them what they were, if `where`, which the host need not know, is True."""
        if where is not None and where.device.type == "cpu" and not where:
            return
        for group, kept in zip(self._buffers.values(), self._kept, strict=True):
            chosen = kept if where is None else torch.where(where, kept, _flat(group))
            parts = chosen.split([buffer.numel() for buffer in group])
            views = [part.view(own.shape) for part, own in zip(parts, group, strict=True)]
            torch._foreach_copy_(group, views)


class BuffersOf:
    """The buffers of a module, time after time: the walk over its parts is made once."""

    def __init__(self, module: nn.Module) -> None:
        self._parts = [part._buffers for part in module.modules() if part._buffers]

    def now(self) -> list[Tensor]:
        """Those that are there now."""
        return [each for part in self._parts for each in part.values() if each is not None]


def _flat(buffers: list[Tensor]) -> Tensor:
    return torch.cat([buffer.flatten() for buffer in buffers])

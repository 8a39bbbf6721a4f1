"""Memory that outlives a block of pairs: for the next block, or for backward.

Were every block to allocate its own, the small tensors that stay would lie between the large ones
that come and go, and the next large one would not fit the hole that the last one left. The heap
then grows with the number of blocks, and fresh memory is three times as slow to write.
"""

from __future__ import annotations

from math import ceil, prod

import torch
from torch import Tensor

# What forward may leave for backward, which then computes less again.
KEPT_BYTES = {"cpu": 224 * 2**20, "cuda": 2**31}

# So that every tensor begins where those of a fresh allocation would.
_ALIGNMENT_BYTES = 64


class Scratch:
    """Named places for the large tensors of a block, each of which the next block overwrites."""

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self._size, self._dtype, self._device = size, dtype, device
        self._places: dict[str, Tensor] = {}

    def place(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A tensor to write to; what an earlier one of that name held is lost."""
        if name not in self._places:
            self._places[name] = torch.empty(self._size, dtype=self._dtype, device=self._device)
        return self._places[name][: prod(shape)].view(shape)


class KeptMemory:
    """What forward keeps for backward, in one allocation.

    At most a fixed sum by default, and none where `chunk_size` decides about the memory.
    """

    def __init__(self, wanted_bytes: int, chunk_size: int | None, device: torch.device) -> None:
        most_bytes = KEPT_BYTES[device.type] if chunk_size is None else 0
        self._size_bytes, self._device = min(wanted_bytes, most_bytes), device
        self._used_bytes = 0
        self._memory: Tensor | None = None

    def place(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
        """A tensor to write to, or None where there is no room left."""
        start = ceil(self._used_bytes / _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        end = start + prod(shape) * dtype.itemsize
        if end > self._size_bytes:
            return None
        if self._memory is None:
            self._memory = torch.empty(self._size_bytes, dtype=torch.uint8, device=self._device)
        self._used_bytes = end
        return self._memory[start:end].view(dtype).view(shape)

    def copy(self, tensor: Tensor) -> Tensor | None:
        """The values of `tensor`, or None where there is no room left."""
        place = self.place(tuple(tensor.shape), tensor.dtype)
        return None if place is None else place.copy_(tensor)

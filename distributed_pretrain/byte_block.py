"""Many tensors one after another in one block of host memory, which a GPU may reach directly."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import UInt8
from torch import Tensor

Block: TypeAlias = UInt8[Tensor, " bytes"]
# What numbers of any type may begin at, and what copies like.
_ALIGNMENT_BYTES = 64


class Place(NamedTuple):
    """Where a tensor lies in a block; `start` and `end` count its bytes."""

    start: int
    end: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def view(self, block: Block) -> Tensor:
        """The tensor that lies there."""
        numbers = block[self.start : self.end].view(self.dtype)
        return numbers.as_strided(self.shape, self.stride, numbers.storage_offset())


class Placing:
    """Gives tensors their places in a block, which has `size_bytes` then."""

    size_bytes = 0

    def place(self, tensor: Tensor) -> Place:
        """A place that is laid out as the tensor: a copy is one run through memory."""
        start = -(-self.size_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        self.size_bytes = start + tensor.nbytes
        like = torch.empty_like(tensor, device="meta")
        return Place(start, self.size_bytes, tuple(like.shape), like.stride(), like.dtype)


def page_lock(block: Block) -> None:
    """Have a block stay where it is in memory, so that GPUs copy from and to it by themselves.

    As large as it is: torch's own allocator of such memory takes the next power of two. It is to be
    unlocked before it is given back. Raises torch.cuda.CudaError where the driver refuses.
    """
    if block.nbytes:
        locked = torch.cuda.cudart().cudaHostRegister(block.data_ptr(), block.nbytes, 0)
        torch.cuda.check_error(int(locked))


def page_unlock(block: Block) -> None:
    """Undo `page_lock`, once no copy is under way."""
    if block.nbytes:
        torch.cuda.cudart().cudaHostUnregister(block.data_ptr())

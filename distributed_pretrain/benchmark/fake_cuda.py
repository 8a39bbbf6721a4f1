"""CUDA tensors without memory, and what an operation on them would make the host wait for."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

_PRODUCT = "distributed_pretrain/"
_aten = torch.ops.aten
_INDEXED = (_aten.index, _aten.index_put, _aten.index_put_)


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Tensors "on" a GPU have shapes, types and devices, and nothing else; needs no driver.

    Operations that mix devices raise.
    """
    with (
        mock.patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False),
        mock.patch("torch.cuda.is_bf16_supported", return_value=True),
        FakeTensorMode(allow_non_fake_inputs=True),
    ):
        yield


def moved(module: nn.Module, device: str = "cuda") -> nn.Module:
    """The module with all its tensors fake ones, on the fake GPU or another device."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                values = _like(parameter, device)
                part._parameters[name] = nn.Parameter(values, parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = _like(buffer, device)
    return module


def _like(tensor: Tensor, device: str) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)


def _statistics(maps: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return _channels(maps), _channels(maps)


def _sums(_: Tensor, maps: Tensor, *__: Any) -> tuple[Tensor, Tensor, None, None]:
    return _channels(maps), _channels(maps), None, None


def _maps(maps: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(maps)


def _channels(maps: Tensor) -> Tensor:
    return maps.new_empty(maps.shape[1], dtype=torch.float32)


# Those that torch has for a GPU alone, without shapes for fake tensors.
NORM_KERNELS: dict[Any, Any] = {
    _aten.batch_norm_stats: _statistics,
    _aten.batch_norm_elemt: _maps,
    _aten.batch_norm_backward_reduce: _sums,
    _aten.batch_norm_backward_elemt: _maps,
}


class HostWaits(TorchDispatchMode):
    """Counts, by the place in the product, what waits for the GPU: reads, and masks as indexes.

    Answers them with something: True, 1, every row. `copies` are those from pageable memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()
        self.operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, operation = kwargs or {}, func.overloadpacket
        self.operations += 1
        first = args[0] if args and isinstance(args[0], Tensor) else None
        reads = operation in (_aten._local_scalar_dense, _aten.nonzero)
        masked = operation in _INDEXED and any(map(_is_mask, args[1]))
        if first is not None and first.is_cuda and (reads or masked):
            self.waits[_place()] += 1
        if first is not None and operation is _aten._local_scalar_dense:
            return True if first.dtype is torch.bool else 1
        if first is not None and operation is _aten.nonzero:
            return first.new_empty(first.numel(), first.dim(), dtype=torch.long)
        if operation in NORM_KERNELS:
            return NORM_KERNELS[operation](*args)
        if masked:
            rows = [torch.arange(len(e), device="cuda") if _is_mask(e) else e for e in args[1]]
            args = (first, rows, *args[2:])
        if operation is _aten._to_copy and first is not None and "device" in kwargs:
            to_cuda = torch.device(kwargs["device"]).type == "cuda"
            if first.is_cuda and not to_cuda:
                self.waits[_place()] += 1
            if to_cuda and not first.is_cuda:
                self.copies[_place()] += 1
        return func(*args, **kwargs)


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype is torch.bool and index.is_cuda


def _place() -> str:
    """The innermost function of the product, as "file:function"."""
    for frame in reversed(traceback.extract_stack()):
        if _PRODUCT in frame.filename and "/tests/" not in frame.filename:
            if frame.filename == __file__:
                continue
            return f"{frame.filename.rpartition(_PRODUCT)[2]}:{frame.name}"
    return "elsewhere"

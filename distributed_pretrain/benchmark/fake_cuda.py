"""CUDA tensors without memory, and what an operation on them would make the host wait for."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakIdKeyDictionary

from distributed_pretrain.benchmark.fake_backward import run_backward

_PRODUCT = "distributed_pretrain/"
_aten = torch.ops.aten
_INDEXED = (_aten.index, _aten.index_put, _aten.index_put_)


@contextmanager
def fake_cuda() -> Iterator[None]:
    """Tensors "on" a GPU have shapes, types and devices, and nothing else; needs no driver.

    Operations that mix devices raise. Gradients are walked by `run_backward`.
    """
    with (
        mock.patch("torch.autograd._engine_run_backward", run_backward),
        mock.patch("torch.cuda.Event", _Event),
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


class _Event:
    """Of CUDA: to wait for one is to read a number."""

    def record(self) -> None: ...

    def synchronize(self) -> None:
        torch.empty((), device="cuda").item()


class HostWaits(TorchDispatchMode):
    """Counts, by the place in the product, what waits for the GPU, and answers it with something.

    That are reads (1, True), sizes that numbers on the GPU decide (every row), indexes that lie on
    the host (lists of Python, say), and copies from or to the host, but for `non_blocking` ones;
    one to the host waits all the same unless it goes to page-locked memory. `copies` are those from
    pageable memory that do not wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()
        self.operations = 0
        self._page_locked = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, operation = kwargs or {}, func.overloadpacket
        self.operations += 1
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if operation in NORM_KERNELS:
            return NORM_KERNELS[operation](*args)
        if operation is _aten._pin_memory or kwargs.get("pin_memory"):
            made = torch.empty_like(first) if first is not None else func(*args, **kwargs)
            self._page_locked[made] = True
            return made
        if first is not None:
            if operation in (_aten._local_scalar_dense, _aten.nonzero) and first.is_cuda:
                self.waits[_place()] += 1
            if operation is _aten._local_scalar_dense:
                return True if first.dtype is torch.bool else 1
            if operation is _aten.nonzero:
                return first.new_empty(first.numel(), first.dim(), dtype=torch.long)
            if operation in _INDEXED and first.is_cuda:
                args = (first, self._indexes(args[1]), *args[2:])
            elif operation is _aten.copy_:
                self._count_copy(args[1], first, non_blocking=_flag(args, 2, kwargs))
            elif operation is _aten._to_copy and "device" in kwargs:
                copied = func(*args, **kwargs)
                # Torch makes room for it in page-locked memory where nobody is to wait.
                self._page_locked[copied] = not copied.is_cuda
                self._count_copy(first, copied, non_blocking=_flag(args, 1, kwargs))
                return copied
        return func(*args, **kwargs)

    def _indexes(self, indexes: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Those that fake tensors take: every row for a mask, on the GPU what is on the host."""
        found: list[Tensor | None] = []
        for index in indexes:
            is_mask = index is not None and index.dtype is torch.bool
            if index is None or (index.is_cuda and not is_mask):
                found.append(index)
                continue
            self.waits[_place()] += 1
            places = index.numel() if is_mask else index.shape
            rows = torch.zeros(places, dtype=torch.long, device="cuda")
            found += [rows] * (index.dim() if is_mask else 1)
        return found

    def _count_copy(self, source: Tensor, target: Tensor, *, non_blocking: bool) -> None:
        if source.is_cuda == target.is_cuda:
            return
        host = target if source.is_cuda else source
        page_locked = self._page_locked.get(host, False)
        if not non_blocking or (source.is_cuda and not page_locked):
            self.waits[_place()] += 1
        elif not page_locked:
            self.copies[_place()] += 1


def _flag(args: tuple[Any, ...], position: int, kwargs: dict[str, Any]) -> bool:
    return bool(args[position] if len(args) > position else kwargs.get("non_blocking", False))


def _place() -> str:
    """The innermost function of the product, as "file:function"."""
    for frame in reversed(traceback.extract_stack()):
        if _PRODUCT in frame.filename and "/tests/" not in frame.filename:
            if frame.filename == __file__:
                continue
            return f"{frame.filename.rpartition(_PRODUCT)[2]}:{frame.name}"
    return "elsewhere"

"""What a micro-batch takes of a device's memory, counted on tensors that have none.

Forward and losses run with torch's fake tensors, which know shapes, types and devices: no number is
computed, no memory taken, and the device need not be there. Counted is every storage that an
operation makes, from then on until nothing refers to it.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.weak import WeakIdKeyDictionary

from distributed_pretrain.batch import Batch
from distributed_pretrain.methods.objective import Contrasted, Objective
from distributed_pretrain.ranks import as_one_process
from distributed_pretrain.training.gradients import loss_of_groups

_aten = torch.ops.aten
_INDEXED = (_aten.index, _aten.index_put, _aten.index_put_)
# Gradients of an operation's result and of its input. Walks of nine profiles with their backward,
# on fake CPU tensors, took 0.3 to 2.6 times the largest beside what forward had kept.
_GRADIENTS_AT_WORK = 2


@dataclass(frozen=True)
class WalkedBytes:
    """Bytes of all inputs of a rank, and of what lives on top of weights and gradients.

    Of one micro-batch `kept` is what forward and losses leave for backward, `working` what comes
    and goes beside it. `compared` are the losses over all micro-batches together where accumulation
    is exact, and `cached` what is held of them. `evaluating` is the most that a forward of all
    takes without gradient, as in validation.
    """

    inputs: int
    kept: int
    working: int
    compared: int = 0
    cached: int = 0
    evaluating: int = 0


def walk(
    objective: Objective,
    probe: Callable[..., Batch],
    device: torch.device,
    *,
    rows: int,
    of_rank: int,
    tokens: int,
    compares_all: bool,
    groups: int = 1,
    dtype: torch.dtype | None = None,
    fused_attention: bool = True,
) -> WalkedBytes:
    """The bytes of a micro-batch of `rows` of `of_rank` samples, in autocast to `dtype`.

    Their reports have `tokens` tokens. With `compares_all` losses compare all samples, else those
    of each of the micro-batch's `groups` (whose norms keep as much as one norm of all).
    `probe(device, rows=, tokens=)` makes it. Of other ranks nothing is counted: what is gathered
    from them is small beside all else. A number that the host would read from the device is
    answered by the largest there can be, `tokens`, a mask by True: nothing is padding. `objective`
    is not changed.
    """
    lowered = partial(_autocast, device.type, dtype)
    with contextlib.ExitStack() as modes:
        modes.enter_context(as_one_process())
        modes.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        live = modes.enter_context(_LiveBytes(tokens))
        if fused_attention and device.type == "cuda":
            modes.enter_context(_FusedAttention())
        fake = _on_fake_device(objective, device)
        whole = probe(device, rows=of_rank, tokens=tokens)
        with live.anew(), torch.no_grad(), lowered():
            fake.eval()(whole)
            evaluating = live.peak
        fake.train()
        batch = probe(device, rows=rows, tokens=tokens)
        compared, cached = 0, 0
        if compares_all and of_rank > rows:
            with live.anew():
                with torch.no_grad(), lowered():
                    contrasted = fake.contrasted(fake(batch))
                compared, cached = _compare(fake, contrasted, of_rank // rows, live)
                del contrasted
        with live.anew():
            with lowered():
                outputs = fake(batch)
            loss = loss_of_groups(fake, outputs, groups)
            del outputs
            kept, working = live.now, live.peak - live.now + _GRADIENTS_AT_WORK * live.largest
            del loss
    return WalkedBytes(_bytes_of_batch(whole), kept, working, compared, cached, evaluating)


def _compare(
    fake: Objective, contrasted: Contrasted, parts: int, live: _LiveBytes
) -> tuple[int, int]:
    """(the most that the losses over `parts` such pieces take, the gradients that they leave)."""
    joint = Contrasted.joined([contrasted] * parts)
    leaves = [each.requires_grad_() for each in joint.rows.values() if each.is_floating_point()]
    live.peak = live.now
    terms = fake.batch_terms(**joint.by_name)
    cached = sum(map(_bytes, leaves))
    most = live.peak + cached
    del terms
    return most, cached


def _on_fake_device(objective: Objective, device: torch.device) -> Objective:
    """A copy whose parameters and buffers are fake, and on `device`."""
    fakes: dict[int, Any] = {}
    for tensor in (*objective.parameters(), *objective.buffers()):
        like = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
        is_parameter = isinstance(tensor, nn.Parameter)
        fakes[id(tensor)] = nn.Parameter(like, tensor.requires_grad) if is_parameter else like
    return copy.deepcopy(objective, fakes)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _bytes_of_batch(batch: Batch) -> int:
    total = 0

    def add(tensor: Tensor) -> Tensor:
        nonlocal total
        total += _bytes(tensor)
        return tensor

    batch.map_tensors(add)
    return total


@contextlib.contextmanager
def _autocast(device_type: str, dtype: torch.dtype | None) -> Iterator[None]:
    """torch.autocast, which would do nothing for a GPU that is not there."""
    if dtype is None:
        yield
        return
    before = torch.is_autocast_enabled(device_type), torch.get_autocast_dtype(device_type)
    torch.set_autocast_enabled(device_type, True)
    torch.set_autocast_dtype(device_type, dtype)
    torch.autocast_increment_nesting()
    try:
        with warnings.catch_warnings():
            # Of places in the model that switch it off.
            warnings.filterwarnings("ignore", "User provided device_type of 'cuda'")
            yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled(device_type, before[0])
        torch.set_autocast_dtype(device_type, before[1])


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages that operations made and something still refers to.

    `now` and `peak` count from the last `anew` on. `largest` is the largest result of an operation
    on tensors, which a backward makes as large a gradient of.
    """

    def __init__(self, largest_number: int) -> None:
        super().__init__()
        self.now = self.peak = self.largest = 0
        self._number = largest_number
        self._known: WeakIdKeyDictionary = WeakIdKeyDictionary(ref_type=weakref.ref)
        self._walk = 0

    @contextlib.contextmanager
    def anew(self) -> Iterator[None]:
        self._walk += 1
        self.now = self.peak = self.largest = 0
        yield

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, operation = kwargs or {}, func.overloadpacket
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is not None and operation is _aten._local_scalar_dense:
            return True if first.dtype is torch.bool else self._number
        if first is not None and operation is _aten.nonzero:
            return first.new_empty(first.numel(), first.dim(), dtype=torch.long)
        if operation in _INDEXED:
            rows = [_rows(each) if _is_mask(each) else each for each in args[1]]
            args = (first, rows, *args[2:])
        result = func(*args, **kwargs)
        is_result = any(isinstance(each, Tensor) for each in tree_iter(args))
        for each in tree_iter(result):
            if isinstance(each, Tensor):
                self._note(each, is_result=is_result)
        return result

    def _note(self, tensor: Tensor, *, is_result: bool) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known[storage] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        if is_result:
            self.largest = max(self.largest, size)
        weakref.finalize(storage, self._forget, size, self._walk)

    def _forget(self, size: int, walk: int) -> None:
        if walk == self._walk:
            self.now -= size


class _FusedAttention(TorchFunctionMode):
    """The memory-efficient kernel, which a GPU takes for reports with a mask of padding.

    Without a driver torch would choose the plain one, and that keeps the scores of every pair of
    tokens. (The flash kernel takes no mask, and keeps as much as this one.)
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is not F.scaled_dot_product_attention:
            return func(*args, **kwargs)
        queries, keys, values = (each.contiguous() for each in args[:3])
        mask = kwargs.get("attn_mask")
        if mask is not None:
            bias = torch.zeros_like(mask, dtype=queries.dtype)
            mask = bias.expand(*queries.shape[:3], keys.shape[2])
        keeps = torch.is_grad_enabled() and queries.requires_grad
        attended, *_ = _aten._scaled_dot_product_efficient_attention(
            queries, keys, values, mask, keeps, kwargs.get("dropout_p", 0.0)
        )
        return attended


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype is torch.bool


def _rows(mask: Tensor) -> Tensor:
    return torch.arange(len(mask), device=mask.device)

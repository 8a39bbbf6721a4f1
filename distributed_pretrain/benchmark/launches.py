"""What the host launches, copies and waits for in a step of a profile, counted without a GPU.

torch's fake tensors know shapes, types and devices: no number is computed. Launches are operations
that are neither views nor allocations, in forward, losses and backward of one micro-batch. Those
are CPU tensors, as autograd will not walk backward for a GPU without a driver; batch norms and
pairs are computed as on a GPU all the same. What is one kernel there and several operations here
(dropout) is counted as here. Copies and waits are those of a whole step on fake CUDA tensors, whose
backward is walked by autograd's nodes without its engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from distributed_pretrain.alignment import gloria, limitr
from distributed_pretrain.alignment.pairwise import memory
from distributed_pretrain.alignment.pairwise.products import bfloat16_even_if_slow
from distributed_pretrain.batch import Batch
from distributed_pretrain.benchmark.fake_cuda import NORM_KERNELS, moved
from distributed_pretrain.benchmark.fake_step import CUDA, LATE_READ, walk_step
from distributed_pretrain.methods.objective import Method
from distributed_pretrain.methods.settings import Sizes
from distributed_pretrain.models.norms import synchronised
from distributed_pretrain.pretrain.build import full_studies
from distributed_pretrain.pretrain.random_weights import with_random_weights
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.ranks import as_one_process
from distributed_pretrain.training.engine.ddp import Engine
from distributed_pretrain.training.gradients import accumulate_gradients
from distributed_pretrain.training.settings import TrainingConfig

TOKENS = 128
# Before anything was done for GPUs: of LoVT's micro-batch of 32, 16 a step.
LOVT_AT_FIRST = 16 * 2525
_aten = torch.ops.aten
_CPU = torch.device("cpu")
_NOT_LAUNCHED = {
    _aten.empty,
    _aten.empty_like,
    _aten.empty_strided,
    _aten.new_empty,
    _aten.new_empty_strided,
    _aten.detach,
    _aten.alias,
    _aten._unsafe_view,
    _aten._local_scalar_dense,
    torch.ops.prim.device,
}


@dataclass(frozen=True)
class Counts:
    """Of one step, on one rank; copies and waits are `micro_batches` times those of one.

    `late_reads` are the step's own: for its numbers, when the next step has been launched. The
    optimizer's launches are not in it, nor those of a first pass of exact accumulation.
    """

    micro_batches: int
    launches: int
    copies_of_one: int
    waits_of_one: int
    late_reads: int

    @property
    def copies(self) -> int:
        """From the host's pageable memory, beside the batch."""
        return self.micro_batches * self.copies_of_one

    @property
    def waits(self) -> int:
        """How often the host waits for the device."""
        return self.micro_batches * self.waits_of_one + self.late_reads


def counts_of(config: PretrainConfig) -> Counts:
    """The counts of a profile with random weights, for studies that have all that is asked for."""
    config = with_random_weights(config)
    groups = config.training.groups(config.data.global_batch)
    launched = sum(
        _launches(one_micro_batch(config, each), each) * times
        for each, times in Counter(groups).items()
    )
    one = one_micro_batch(config, groups[0])
    seen = walk_step(one, _method(one), lambda: _batch(one, CUDA))
    late = seen.waits.pop(LATE_READ)
    return Counts(len(groups), launched, seen.copies.total(), seen.waits.total(), late)


def _method(config: PretrainConfig) -> Method:
    with torch.device("meta"):
        method = config.method.build(Sizes(config.vocabulary_size, len(config.data.labels)))
    return method.train()


def one_micro_batch(config: PretrainConfig, groups: int) -> PretrainConfig:
    """The profile of a step that has no more than a micro-batch with so many groups."""
    batch = config.data.global_batch
    rows = batch // config.training.ordered_parts(batch) * groups
    training = config.training.model_copy(update={"accumulation_steps": 1})
    data = config.data.model_copy(update={"global_batch": rows})
    return config.model_copy(update={"training": training, "data": data})


def _batch(config: PretrainConfig, device: torch.device) -> Batch:
    rows, tokens = config.data.global_batch, min(TOKENS, config.data.max_tokens)
    whole = full_studies(config)(device, rows=rows, tokens=tokens)
    (batch,) = whole.split([1], pack=config.training.pack_reports is not False)
    return batch


def _launches(config: PretrainConfig, groups: int) -> int:
    """Of a profile with one micro-batch, that holds so many groups."""
    engine = Engine(TrainingConfig(precision=config.training.precision))
    engine.device = _CPU
    method = _method(config)
    with (
        as_one_process(),
        _as_on_a_gpu(),
        FakeTensorMode(allow_non_fake_inputs=True),
        _Launches() as seen,
    ):
        moved(method, _CPU.type)
        engine.prepare(method, torch.optim.SGD(method.parameters()))
        batch = _batch(config, _CPU)
        seen.by_name.clear()
        accumulate_gradients(
            engine, [batch], exact=False, seed=0, measure_norms=False, groups=[groups]
        )
    return sum(seen.by_name.values())


@contextmanager
def _as_on_a_gpu() -> Iterator[None]:
    """The kernels of batch norms, and the blocks and products of pairs, that a GPU would take."""
    with ExitStack() as stack:
        kernels = mock.patch.object(synchronised, "has_kernels", lambda maps: maps.numel() > 0)
        stack.enter_context(kernels)
        for sizes in (gloria.BLOCK_BYTES, limitr.BLOCK_BYTES, memory.KEPT_BYTES):
            stack.enter_context(mock.patch.dict(sizes, cpu=sizes["cuda"]))
        stack.enter_context(bfloat16_even_if_slow())
        yield


class _Launches(TorchDispatchMode):
    """Counts operations by name, and answers what fake tensors cannot.

    A number that is read is 1, a mask is True everywhere: nothing is padding.
    """

    def __init__(self) -> None:
        super().__init__()
        self.by_name: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs, operation = kwargs or {}, func.overloadpacket
        if operation not in _NOT_LAUNCHED and not func.is_view:
            self.by_name[operation.__name__] += 1
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is not None and operation is _aten._local_scalar_dense:
            return True if first.dtype is torch.bool else 1
        if operation in NORM_KERNELS:
            return NORM_KERNELS[operation](*args)
        return func(*args, **kwargs)

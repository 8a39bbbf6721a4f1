"""The only file that talks to other ranks: gather and sum with exact gradients.

With L = (1/N) Σ_r L_r over N ranks, the gradient that reaches a gathered (or summed) tensor on
one rank is that of its own L_r alone. Adding these over the ranks in backward, and letting DDP
average the parameters' gradients, gives dL/dθ with factor 1. An averaging backward would shrink
it by N, and a gather without gradient has the same loss and the wrong direction.

Every function is the identity in one process, and each rank must call them in the same order
with tensors of the same shape.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeAlias, TypeVar

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.nn.functional import all_reduce
from torch.distributed.rendezvous import rendezvous

ObjectT = TypeVar("ObjectT")


_one_process = False


@contextlib.contextmanager
def as_one_process() -> Iterator[None]:
    """Within it every function here is the identity: for computations of this rank alone."""
    global _one_process
    before, _one_process = _one_process, True
    try:
        yield
    finally:
        _one_process = before


def world_size() -> int:
    """The number of ranks, 1 when torch.distributed is not initialised."""
    if _one_process:
        return 1
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


def gather_rows(rows: Shaped[Tensor, "batch ..."]) -> Shaped[Tensor, "all_ranks ..."]:
    """The rows of all ranks, rank 0's first. The gradient is summed over the ranks."""
    gathered: Tensor = _GatherRows.apply(rows) if world_size() > 1 else rows
    return gathered


def gather_numbers(numbers: Sequence[int], device: torch.device) -> list[list[int]]:
    """The `numbers` of each rank, as many on each, rank 0's first.

    They travel on `device`, for which the host waits once.
    """
    if world_size() == 1:
        return [list(numbers)]
    own = torch.tensor([numbers], device=device)
    of_all: list[list[int]] = gather_rows(own).tolist()
    return of_all


def own_rows(batch: int) -> slice:
    """Where this rank's `batch` rows lie among those that `gather_rows` returns."""
    start = distributed.get_rank() * batch if world_size() > 1 else 0
    return slice(start, start + batch)


def sum_over_ranks(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Σ over the ranks of `values`. The gradient is summed over the ranks too."""
    total: Tensor = all_reduce(values) if world_size() > 1 else values
    return total


_sharing: distributed.ProcessGroup | None = None


def share_statistics_among(ranks: int | None) -> None:
    """Let norms share statistics among so many consecutive ranks (None: all), as those of a node.

    `ranks` divides their number, and all of them call this together.
    """
    global _sharing
    _sharing = None
    if ranks is not None and ranks < world_size():
        _sharing, _ = distributed.new_subgroups(ranks)


def sum_of_statistics(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """`sum_over_ranks`, over the ranks that `share_statistics_among` has named."""
    if world_size() == 1:
        return values
    total: Tensor = all_reduce(values, group=_sharing or distributed.group.WORLD)
    return total


def mean_over_samples(
    values: Float[Tensor, " batch"],
    sample_mask: Bool[Tensor, " batch"] | None,
    *,
    across_ranks: bool = True,
) -> Float[Tensor, ""]:
    """The mean of the real samples' `values`, 0 when there are none.

    Ranks may hold different numbers of real samples: each divides by the mean number over the
    ranks, which weights it by N * count_r / Σ count, so that the average over the ranks is the
    mean over all samples. `across_ranks=False` divides by this rank's number.
    """
    if sample_mask is None:
        return values.mean()
    count = sample_mask.sum().to(values.dtype)
    ranks = world_size() if across_ranks else 1
    total = sum_over_ranks(count) if across_ranks else count
    return torch.where(sample_mask, values, 0.0).sum() * (ranks / total.clamp(min=1))


def mean_over_ranks(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The element-wise mean over ranks, without gradient."""
    return sum_over_ranks(values.detach()) / world_size()


def copy_from_main(tensors: Iterable[Tensor]) -> None:
    """Overwrite `tensors` (running statistics, say) with those of rank 0."""
    if world_size() > 1:
        for tensor in tensors:
            distributed.broadcast(tensor, src=0)


def gather_objects(value: ObjectT) -> list[ObjectT]:
    """`value` of each rank, rank 0's first, of any kind and size.

    Tensors in it lie on the CPU, and are no views of larger ones, which would travel whole.
    """
    gathered = [value] * world_size()
    if world_size() > 1:
        distributed.all_gather_object(gathered, value)
    return gathered


def wait_for_all() -> None:
    """Return when every rank has come here."""
    if world_size() > 1:
        distributed.barrier()


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, rows: Tensor) -> Tensor:
        gathered = rows.new_empty(world_size() * rows.shape[0], *rows.shape[1:])
        distributed.all_gather_into_tensor(gathered, rows.contiguous())
        return gathered

    @staticmethod
    @once_differentiable
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        own = gradient.new_empty(gradient.shape[0] // world_size(), *gradient.shape[1:])
        distributed.reduce_scatter_tensor(own, gradient.contiguous())
        return own


# A key-value store beside the collectives, for what ranks must say when those no longer work.
RankStore: TypeAlias = Store
# What a call to a store raises when its host is gone, or does not answer in time.
STORE_ERRORS = (distributed.DistError,)


def store_address() -> str:
    """Where the launcher put the ranks' store: "host:port"."""
    return f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"


def rank_zero_hosts_the_store() -> bool:
    """Whether the store ends with rank 0's process (else it ends with torchrun's on its node)."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True)


def connect_to_store(*, rank: int, ranks: int, timeout_seconds: float) -> RankStore:
    """A connection of its own to the store at `store_address`, with keys of this start only.

    Every rank must connect equally often. A host that is stopped, not dead, makes a call wait for
    longer than the timeout: call from a thread that may hang. Where rank 0 hosts the store, its
    connection keeps it open beyond the end of the process group.
    """
    meeting = rendezvous(
        "env://", rank=rank, world_size=ranks, timeout=timedelta(seconds=timeout_seconds)
    )
    store, _, _ = next(meeting)
    # torchrun may keep its store over restarts; one process may start more than once.
    restart = f"liveness/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    start = store.add(f"{restart}/starts/{rank}", 1)
    return PrefixStore(f"{restart}/{start}", store)


def words_of_all(words: str, *, rank: int, ranks: int, timeout_seconds: float) -> list[str]:
    """What each rank says, rank 0's first, without a collective: it may be about their devices."""
    store = connect_to_store(rank=rank, ranks=ranks, timeout_seconds=timeout_seconds)
    store.set(f"words/{rank}", words)
    said = [store.get(f"words/{each}").decode() for each in range(ranks)]
    store.set(f"heard/{rank}", "")
    if rank == 0:  # it may take the store with it
        store.wait([f"heard/{each}" for each in range(ranks)])
    return said


def is_communication_error(error: BaseException) -> bool:
    """Whether a collective failed for want of another rank: gone, or too late.

    gloo raises plain RuntimeErrors; those of tensors that do not fit are "enforce fail", and ours.
    """
    text = str(error)
    return isinstance(error, distributed.DistError) or (
        isinstance(error, RuntimeError) and "gloo/transport" in text and "enforce fail" not in text
    )

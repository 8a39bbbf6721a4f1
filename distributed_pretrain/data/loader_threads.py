"""Host batches made by threads, some batches ahead of whoever takes them.

Threads suffice beside a CPU's step: checksums, JPEG decoding and tokenizing release the
interpreter's lock. Beside a GPU's they run in processes of their own, see `loader_processes`.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count, islice
from typing import NamedTuple, TypeAlias

from distributed_pretrain.data.host_batch import HostBatch
from distributed_pretrain.data.sample import LoadedSample

# Of the batches that are prefetched, parts for each thread: enough that none waits for work. The
# fewer, the larger they are, and the quicker `load_samples` is with each row.
_PARTS_A_THREAD = 1.5


class Plan(NamedTuple):
    """A rank's rows of a batch to load; positions beyond the split only fill it up."""

    positions: list[int]
    samples_consumed: int
    epoch: int = 0


Load: TypeAlias = Callable[[Sequence[int], Plan], list[LoadedSample]]
Join: TypeAlias = Callable[[Sequence[LoadedSample], Plan], HostBatch]


def batches_by_threads(
    plans: Iterator[Plan],
    *,
    load: Load,
    join: Join,
    threads: int,
    ahead: int,
    start_thread: Callable[[], object] | None = None,
) -> Generator[HostBatch]:
    """Of each plan what `join` makes of what `load` makes of its parts, `ahead` batches ahead.

    The first exception of any part is raised in its batch's turn. When the iterator ends, is closed
    or fails, all its threads have ended. Each calls `start_thread` first.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="data", initializer=start_thread)
    parts_a_batch = math.ceil(_PARTS_A_THREAD * threads / ahead)

    def start(plan: Plan) -> Future[HostBatch]:
        joined = Future[HostBatch]()
        rows = max(1, math.ceil(len(plan.positions) / parts_a_batch))
        # One part at least: its end makes the batch.
        firsts = range(0, max(1, len(plan.positions)), rows)
        parts = [pool.submit(load, plan.positions[first : first + rows], plan) for first in firsts]
        unfinished = count(len(parts) - 1, -1)

        def join_the_last(_: Future[list[LoadedSample]]) -> None:
            if next(unfinished):
                return
            try:
                samples = [sample for part in parts for sample in part.result()]
                joined.set_result(join(samples, plan))
            except BaseException as error:
                joined.set_exception(error)  # for whoever asks for the batch
                if not isinstance(error, Exception):  # Ctrl-C, where this is the main thread
                    raise
            parts.clear()  # which have this function, and so each other, for ever

        # By the thread that ends the last part, so that none waits for another.
        for part in tuple(parts):
            part.add_done_callback(join_the_last)
        return joined

    try:
        started = map(start, plans)
        pending = deque(islice(started, ahead))
        while pending:
            result = pending.popleft().result()
            pending.extend(islice(started, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)

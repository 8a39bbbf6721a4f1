"""Batches made ahead by threads, handed over in order, never more than a bounded number."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice, starmap
from typing import TypeVar

Row = TypeVar("Row")
Loaded = TypeVar("Loaded")
Result = TypeVar("Result")

# Large enough to make a task's own cost small, small enough to spread one batch over all threads.
_ROWS_A_TASK = 4


def prefetch_in_order(
    batches: Iterable[tuple[Sequence[Row], Callable[[list[Loaded]], Result]]],
    load: Callable[[Row], Loaded],
    *,
    threads: int,
    prefetch_batches: int,
) -> Generator[Result]:
    """For each (rows, assemble) in turn: `assemble` of its loaded rows.

    Rows are loaded, and batches assembled, by `threads` threads, at most `prefetch_batches`
    ahead of the consumer. The first exception of any row is raised in its batch's turn. When the
    iterator ends, is closed or fails, all its threads have ended.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="data")

    def load_all(rows: Sequence[Row]) -> list[Loaded]:
        return [load(row) for row in rows]

    def start(rows: Sequence[Row], assemble: Callable[[list[Loaded]], Result]) -> Future[Result]:
        parts = [
            pool.submit(load_all, rows[i : i + _ROWS_A_TASK])
            for i in range(0, len(rows), _ROWS_A_TASK)
        ]
        # The pool is first in, first out: when a thread reaches this task all its parts have been
        # started, so waiting for them inside the pool cannot lock up.
        return pool.submit(lambda: assemble([row for part in parts for row in part.result()]))

    try:
        started = starmap(start, batches)
        pending = deque(islice(started, prefetch_batches))
        while pending:
            result = pending.popleft().result()
            pending.extend(islice(started, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)

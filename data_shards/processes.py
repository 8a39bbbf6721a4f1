"""Worker processes, cores, signals that ask to end, and progress on stderr.

A task of `map_in_processes` is `task(context, item, tick)`: `context` reaches every worker once,
and the task calls `tick()` after each unit of work, which moves the progress and leaves the task
early when the run is being stopped.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from types import FrameType, TracebackType
from typing import Any, Self, TypeAlias, TypeVar

from tqdm import tqdm

from data_shards.errors import InputError

Tick: TypeAlias = Callable[[], None]
ContextT = TypeVar("ContextT")
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_BETWEEN_LINES = 5.0

# Ctrl-C; the end of an allocation, and torchrun to the ranks beside a dead one; Slurm's warning
# before the time limit or a preemption, as submitit asks for it.
ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


class InterruptionFlag:
    """Within it, the ending signals are remembered: whoever works looks at `raised` now and then.

    A handler that did more could deadlock: other ranks may be inside a collective.
    """

    def __init__(self) -> None:
        self.raised = False

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._set) for number in ENDING_SIGNALS}
        return self

    def _set(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.raised = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


def available_cores() -> int:
    """The cores this process may use."""
    # macOS cannot tell which cores are ours.
    can_tell = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if can_tell else os.cpu_count() or 1


class Progress:
    """Counts `unit` up to `total`, with rate and time left. Use as a context manager."""

    def __init__(self, what: str, *, total: int, unit: str) -> None:
        self.what = what
        self.total = total
        self.unit = unit
        self.done = 0
        self._started = time.monotonic()
        self._last_line = self._started
        terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, desc=what, unit=f" {unit}") if terminal else None

    def advance(self, count: int = 1) -> None:
        """Note that `count` more are done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
            return
        now = time.monotonic()
        if self.done and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            rate = self.done / (now - self._started)
            left = timedelta(seconds=round((self.total - self.done) / rate))
            counted = f"{self.done:,} of {self.total:,} {self.unit}"
            print(f"{self.what}: {counted}, {rate:.1f}/s, {left} left", file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()


class StoppedError(Exception):
    """Raised by `tick` in a worker when the run is being stopped."""


def map_in_processes(
    task: Callable[[ContextT, ItemT, Tick], ResultT],
    context: ContextT,
    items: Sequence[ItemT],
    *,
    workers: int,
    progress: Progress,
) -> list[ResultT]:
    """`task`'s results in the order of `items`.

    One worker (or one item) runs in this process. The first error, or Ctrl-C, stops all
    workers at their next tick and is raised here once they have cleaned up.
    """
    workers = min(workers, len(items))
    if workers <= 1:
        return [task(context, item, progress.advance) for item in items]
    processes = start_server()
    done: Synchronized[int] = processes.Value("q", 0)
    stop = processes.Event()
    with (
        _deferred_interrupts() as raise_if_interrupted,
        ProcessPoolExecutor(
            workers, processes, initializer=_start_worker, initargs=(task, context, done, stop)
        ) as pool,
    ):
        futures = [pool.submit(_run, item) for item in items]
        try:
            pending = set(futures)
            while pending:
                finished, pending = wait(pending, SECONDS_BETWEEN_LOOKS, FIRST_EXCEPTION)
                progress.advance(done.value - progress.done)
                for future in finished:
                    future.result()
                raise_if_interrupted()
        except BrokenProcessPool as error:
            # Slurm's SIGTERM goes to the workers too.
            raise_if_interrupted()
            raise InputError(
                "a worker process was killed, as happens when memory runs out: what is finished "
                f"is kept; run the same command again with fewer than workers={workers}"
            ) from error
        finally:
            # Of no effect when all is done; otherwise the pool's exit waits for the workers,
            # who find it at their next tick.
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
    return [future.result() for future in futures]


def start_server(*, preload: Sequence[str] = ()) -> ForkServerContext:
    """The context whose workers are forked from a small clean process (safe with threads).

    `preload`: modules that the process imports once for all its workers. It starts at
    once, so that the imports go on while the caller does something else.
    """
    processes = multiprocessing.get_context("forkserver")
    if preload:
        processes.set_forkserver_preload(list(preload))
    # Ctrl-C and Slurm's signals reach the whole process group; the caller alone decides what to
    # do about them, and a server that died meanwhile would break the start of a worker.
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING_SIGNALS}
        try:
            forkserver.ensure_running()
        finally:
            _restore(handlers)
    return processes


@contextmanager
def _deferred_interrupts() -> Iterator[Callable[[], None]]:
    """A function that raises KeyboardInterrupt if one of ENDING_SIGNALS came in the meantime.

    Raised at once, it could hit the start of a worker, which would get half of its message.
    """
    came: list[int] = []

    def raise_if_interrupted() -> None:
        if came:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield raise_if_interrupted
        return
    handlers = {
        number: signal.signal(number, lambda number, _: came.append(number))
        for number in ENDING_SIGNALS
    }
    try:
        yield raise_if_interrupted
    finally:
        _restore(handlers)


def _restore(handlers: Mapping[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


_work: tuple[Callable[[Any, Any, Tick], Any], Any, Tick]


def _start_worker(
    task: Callable[[Any, Any, Tick], Any], context: Any, done: Synchronized[int], stop: Event
) -> None:
    global _work
    # The server ignores all of them. The pool ends its workers by SIGTERM when one was killed.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def tick() -> None:
        with done.get_lock():
            done.value += 1
        if stop.is_set():
            raise StoppedError

    _work = (task, context, tick)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """End this worker when the main process is killed: nobody else would."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _run(item: Any) -> Any:
    task, context, tick = _work
    return task(context, item, tick)

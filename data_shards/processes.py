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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from typing import Any, Self, TypeAlias, TypeVar

from tqdm import tqdm

from data_shards.errors import InputError
from data_shards.starting import ENDING_SIGNALS as ENDING_SIGNALS

Tick: TypeAlias = Callable[[], None]
ContextT = TypeVar("ContextT")
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_BETWEEN_LINES = 5.0


@contextmanager
def ending_signals_go_to(handler: Callable[..., None] | signal.Handlers) -> Iterator[None]:
    """Meanwhile `handler` gets the ending signals; nothing changes outside of the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number in ENDING_SIGNALS}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


class InterruptionFlag(ExitStack):
    """Within it, the ending signals are remembered: whoever works looks at `raised` now and then.

    A handler that did more could deadlock: other ranks may be inside a collective.
    """

    raised = False

    def __enter__(self) -> Self:
        self.enter_context(ending_signals_go_to(self._raise))
        return super().__enter__()

    def _raise(self, *_: object) -> None:
        self.raised = True


def available_cores() -> int:
    """The cores this process may use."""
    # macOS cannot tell which cores are ours.
    can_tell = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if can_tell else os.cpu_count() or 1


class Progress(AbstractContextManager["Progress"]):
    """Counts `unit` up to `total`, with rate and time left: a bar, or lines without a terminal."""

    def __init__(self, what: str, *, total: int, unit: str) -> None:
        self.done = 0
        self._bar = tqdm(total=total, desc=what, unit=f" {unit}", disable=not sys.stderr.isatty())
        self._format = partial(
            tqdm.format_meter, total=total, ncols=0, prefix=what, unit=f" {unit}"
        )
        self._started = self._last_line = time.monotonic()

    def advance(self, count: int = 1) -> None:
        """Note that `count` more are done."""
        self.done += count
        self._bar.update(count)
        now = time.monotonic()
        if self._bar.disable and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            line = self._format(self.done, elapsed=now - self._started)
            print(line, file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
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
        # Raised at once, an interrupt could hit the start of a worker and cut its message.
        InterruptionFlag() as interruption,
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
                if interruption.raised:
                    raise KeyboardInterrupt
        except BrokenProcessPool as error:
            # Slurm's SIGTERM goes to the workers too.
            if interruption.raised:
                raise KeyboardInterrupt from error
            raise InputError(
                "a worker process was killed, as happens when memory runs out: what is finished "
                f"is kept; run the same command again with fewer than workers={workers}"
            ) from error
        finally:
            # Of no effect when all is done; otherwise the workers find it at their next tick, and
            # are waited for.
            stop.set()
            pool.shutdown(cancel_futures=True)
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
    with ending_signals_go_to(signal.SIG_IGN):
        forkserver.ensure_running()
    return processes


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
    end_with_parent()


def end_with_parent() -> None:
    """From now on this process ends when the one that started it is killed: nobody else would."""
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _run(item: Any) -> Any:
    task, context, tick = _work
    return task(context, item, tick)

"""Notices that a rank is gone, and ends the others with a line that names it.

Collectives know too little: gloo's break at once without a rank's name, NCCL's wait for minutes.
So a thread of every rank posts a heartbeat to a key-value store beside them and reads others': with
N ranks N writes, N reads of two keys and one read of N keys an interval. The first verdict posted
holds for all: ranks leave with `GOES_ON` when one is lost, or with a failing rank's own status.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

from distributed_pretrain.ranks import (
    STORE_ERRORS,
    is_communication_error,
    rank_zero_hosts_the_store,
)
from distributed_pretrain.training.faults.messages import (
    Board,
    Heartbeat,
    PeerError,
    State,
    Verdict,
    absence,
    failure,
    first_line_of,
    loss,
    vanished_store,
)
from distributed_pretrain.training.faults.peers import SUSPICIOUS_INTERVALS, Breakage, Peers

# Heartbeats start close to each other, since the process group's start was a meeting.
START_SECONDS = 60.0
# The main thread may close files and groups after a verdict; closing a group can hang in turn.
UNWIND_SECONDS = 10.0


@dataclass(kw_only=True, eq=False)
class Liveness:
    """A context, one a process, around all after the process group's start; idle with one rank.

    A rank without a heartbeat for `timeout_seconds` is lost. Launchers kill the other ranks of its
    node after 30 s: stay below. With `hang_timeout_seconds`, a run in which no rank changes its
    step or phase for so long ends too (choose less than the process group's own timeout).

    Leaving the block says that this rank finished, or failed with that exception. PeerError takes
    the place of the error of a collective that broke, and of one that another rank reported first.
    Where the main thread does not leave, as in a collective that waits for ever, the process is
    ended without unwinding.
    """

    rank: int
    world_size: int
    timeout_seconds: float
    interval_seconds: float = 1.0
    hang_timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        self._peers = Peers(
            self.rank == 0, self.timeout_seconds, self.interval_seconds, self.hang_timeout_seconds
        )
        # Seconds this process was awake: what passed while it was stopped is not others' silence.
        self._awake = 0.0
        self._store_answered = 0.0
        self._place = Heartbeat(self.rank, socket.gethostname(), os.getpid())
        self._moved = 0.0
        self._beats = count(1)
        self._state = State.RUNNING
        self._breakage: Breakage | None = None
        self._proposal: Verdict | None = None
        self._verdict: Verdict | None = None
        self._kept_alive = threading.Lock()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._decided = threading.Event()
        self._others_know = threading.Event()
        self._told = threading.Event()  # after both: the line is printed, and the others know
        self._main_leaves = threading.Event()
        self._closed = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._watch = threading.Thread(target=self._look, name="liveness", daemon=True)

    def __enter__(self) -> Liveness:
        if self.world_size > 1:
            self._heart.start()
            self._watch.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self.world_size == 1:
            return
        try:
            if error is None:
                self._finish()
            elif is_communication_error(error):
                raise PeerError(self._cause_of(error)) from error
            elif not isinstance(error, PeerError):
                self._fail(error)
        finally:
            self._close()

    def at(self, step: int, phase: str) -> None:
        """Note where the main thread is: heartbeats carry it, and a lost rank's line says it."""
        self._place, self._moved = self._place.at(step, phase), self._awake

    @contextlib.contextmanager
    def kept_alive(self) -> Iterator[None]:
        """Let this block, such as the writing of a checkpoint, end before the process is ended.

        For `timeout_seconds` at most, since the block may wait for the lost rank itself.
        """
        with self._kept_alive:
            yield

    def _cause_of(self, error: BaseException) -> Verdict:
        """What lies behind a broken collective's error: waits until the ranks agree on it.

        Without a silent or failed rank within `timeout_seconds`, the one furthest behind.
        """
        reason = f"the ranks' exchange broke ({first_line_of(error)})"
        self._breakage = Breakage(reason, self._awake)
        self._state = State.BROKEN
        return self._agreed(loss(reason, None))

    def _finish(self) -> None:
        if self._verdict is not None:
            raise PeerError(self._agreed(self._verdict))
        self._state = State.FINISHED
        self._wake.set()
        self._heart.join(self.timeout_seconds)

    def _fail(self, error: BaseException) -> None:
        """Tell the others. Raises the verdict's error where this one is an echo of it."""
        self._proposal = failure(error, self.rank)
        verdict = self._agreed(self._proposal)
        if verdict != self._proposal and verdict.is_echoed_by(error):
            raise PeerError(verdict) from error

    def _agreed(self, own: Verdict) -> Verdict:
        """The verdict, when it is told; `own` when no rank is left to agree with."""
        self._main_leaves.set()
        self._wake.set()
        while not self._told.wait(self.interval_seconds):
            if not self._watch.is_alive():
                return own
        assert self._verdict is not None
        return self._verdict

    def _close(self) -> None:
        self._closed.set()
        self._wake.set()
        if not self._decided.is_set():
            # Bounded: a call to the store may hang.
            self._heart.join(2 * self.interval_seconds)
            self._watch.join(2 * self.interval_seconds)

    # The heartbeat thread: it alone talks to the store, and may hang in it.

    def _beat(self) -> None:
        try:
            board = Board.connect(self.rank, self.world_size, timeout_seconds=START_SECONDS)
            while not (self._decided.is_set() or self._closed.is_set()):
                self._wake.clear()
                self._exchange(board)
                if self._state is not State.FINISHED:
                    self._judge(board)
                elif not self._is_needed():
                    return
                self._wake.wait(self.interval_seconds)
            if self._decided.is_set():
                self._let_others_read(board)
        except STORE_ERRORS:
            self._judge_without_store(None)
        self._others_know.set()

    def _exchange(self, board: Board) -> None:
        """Post our heartbeat; read the verdict and, once all of them are there, the watched."""
        own = replace(self._place, beat=next(self._beats), state=self._state)
        verdict, heard = board.exchange(own, wait_for_all=not self._peers)
        self._store_answered = self._awake
        for heartbeat in heard:
            self._peers.hear(heartbeat, self._awake)
        if verdict is not None and self._state is not State.FINISHED:
            self._decide(verdict)

    def _judge(self, board: Board) -> None:
        proposal = self._proposal
        start_seconds = max(START_SECONDS, self.timeout_seconds)
        if proposal is None and not self._peers and self._awake > start_seconds:
            missing = board.missing()
            proposal = absence(missing, self._awake) if missing else None
        if proposal is None:
            proposal = self._peers.verdict(self._awake, self._place, self._moved, self._breakage)
        if proposal is not None:
            self._decide(board.first_of(proposal))

    def _let_others_read(self, board: Board) -> None:
        """Post that we leave; the rank that hosts the store stays until the others have read."""
        self._state = State.LEAVING
        for _ in range(2 * SUSPICIOUS_INTERVALS):
            self._exchange(board)
            if not self._is_needed():
                break
            time.sleep(self.interval_seconds / 2)

    def _is_needed(self) -> bool:
        """Whether the store would end with this process while another rank uses it."""
        is_host = self.rank == 0 and rank_zero_hosts_the_store()
        return is_host and self._peers.awaited(self._awake)

    # The watching thread: it never talks, so that a store that hangs is noticed too.

    def _look(self) -> None:
        last = time.monotonic()
        while not self._decided.wait(self.interval_seconds / 4):
            if self._closed.is_set() or not self._heart.is_alive():
                return
            now = time.monotonic()
            self._awake += min(now - last, self.interval_seconds)
            last = now
            silent = self._awake - self._store_answered
            if silent > (self.timeout_seconds if self._peers else 2 * START_SECONDS):
                self._judge_without_store(silent)
        self._end()

    def _judge_without_store(self, silent_seconds: float | None) -> None:
        """The store's host is gone, which is a loss unless it or this rank had finished."""
        rank_zero = self._peers.last_of(0)
        finished = rank_zero is not None and rank_zero.state is State.FINISHED
        has_ended = finished and rank_zero_hosts_the_store()
        if not has_ended and self._state is not State.FINISHED:
            self._decide(vanished_store(rank_zero, silent_seconds))
        self._others_know.set()

    def _end(self) -> None:
        """Print the line where this rank is the one to; end the process if nothing else does."""
        verdict = self._verdict
        assert verdict is not None
        if verdict.failure is None and verdict.is_told_by(self.rank):
            _say(verdict.line)
        self._others_know.wait(2 * self._peers.suspicious_seconds)
        self._told.set()
        latest = time.monotonic() + self.timeout_seconds
        if self._main_leaves.wait(self.interval_seconds):
            time.sleep(UNWIND_SECONDS)  # the process usually ends meanwhile
        self._kept_alive.acquire(timeout=max(0.0, latest - time.monotonic()))
        if verdict.failure is not None and verdict.rank == self.rank:
            _say(f"error: {verdict.line}")  # before the main thread could
        os._exit(verdict.exit_status)

    def _decide(self, verdict: Verdict) -> None:
        with self._lock:
            if self._verdict is None:
                self._verdict = verdict
                self._decided.set()


def _say(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # a launcher that died closes our stderr
        print(line, file=sys.stderr, flush=True)

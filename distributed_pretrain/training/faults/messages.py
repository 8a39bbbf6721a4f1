"""What ranks tell each other: signs of life, and in one line for the user why the run ends.

They post both on a board, a key-value store beside the collectives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

from pydantic import TypeAdapter

from data_shards.command_line import GOES_ON, exit_status_of
from data_shards.errors import RunError
from data_shards.starting import launcher_number
from distributed_pretrain.ranks import (
    RankStore,
    connect_to_store,
    rank_zero_hosts_the_store,
    store_address,
)

# A node that dies takes all its ranks along; more names than these help nobody.
NAMED_RANKS = 8


class State(StrEnum):
    """Where a rank stands, as far as the others must know."""

    RUNNING = "running"
    # A collective of its main thread broke: some rank is probably gone.
    BROKEN = "broken"
    # It has read the verdict, and leaves.
    LEAVING = "leaving"
    FINISHED = "finished"


@dataclass(frozen=True)
class Heartbeat:
    """One sign of life; `beat` counts them.

    `step` and `phase` tell where the main thread is, `phases_before` how many phases of this step
    it has behind it.
    """

    rank: int
    host: str
    pid: int
    beat: int = 0
    step: int = 0
    phase: str = "start"
    phases_before: int = 0
    state: State = State.RUNNING

    def at(self, step: int, phase: str) -> Heartbeat:
        """The same rank in its next phase."""
        before = self.phases_before + 1 if step == self.step else 0
        return replace(self, step=step, phase=phase, phases_before=before)

    @property
    def place(self) -> tuple[int, int]:
        """(step, phase of the step): the lower, the further behind."""
        return self.step, self.phases_before


class PeerError(RunError):
    """The run ends because of another rank: all that is to be said is on stderr already."""

    is_said = True

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.line)
        self.exit_status = verdict.exit_status


@dataclass(frozen=True)
class Verdict:
    """Why the run ends, the same on every rank.

    `rank` is the one that is gone or that failed, None where every rank lives but none goes on.
    `failure` is the type of the exception that a rank failed with, None when a rank is lost.
    """

    line: str
    exit_status: int
    rank: int | None
    failure: str | None = None

    def is_told_by(self, rank: int) -> bool:
        """Whether `rank` tells the user: rank 0, or without it rank 1 and one of each node."""
        if self.rank != 0:
            return rank == 0
        return rank == 1 or (rank > 1 and launcher_number("LOCAL_RANK") == 0)

    def is_echoed_by(self, error: BaseException) -> bool:
        """Whether `error`, of another rank, tells nothing new."""
        if self.failure is None:
            return isinstance(error, RuntimeError)
        return self.failure == type(error).__name__


def failure(error: BaseException, rank: int) -> Verdict:
    """`rank` fails by itself: the others take its status."""
    return Verdict(first_line_of(error), exit_status_of(error), rank, type(error).__name__)


def silence(lost: Sequence[Heartbeat], silent_seconds: float) -> Verdict:
    """The ranks of these last heartbeats have gone."""
    have = "has" if len(lost) == 1 else "have"
    silent = f"{have} not answered for {silent_seconds:.0f} s"
    return loss(f"{_names(lost)} {silent} (it was {_place(lost[0])})", lost[0].rank)


def absence(missing: Sequence[int], waited_seconds: float) -> Verdict:
    """Nothing was ever heard of these ranks."""
    ranks = ", ".join(map(str, missing[:NAMED_RANKS]))
    have = f"rank {ranks} has" if len(missing) == 1 else f"ranks {ranks} have"
    return loss(f"{have} not started within {waited_seconds:.0f} s", missing[0])


def vanished_store(rank_zero: Heartbeat | None, silent_seconds: float | None) -> Verdict:
    """The store's host, rank 0 or its node's launcher, is silent or (None) broke the connection."""
    who = f"the launcher that holds the ranks' store at {store_address()}"
    if rank_zero_hosts_the_store():
        who = _names([rank_zero]) if rank_zero else f"rank 0 (at {store_address()})"
    gone = "is gone, its connections are closed"
    if silent_seconds is not None:
        gone = f"has not answered for {silent_seconds:.0f} s"
    return loss(f"{who} {gone}", 0)


def standstill(reason: str, behind: Heartbeat) -> Verdict:
    """The run cannot go on though its ranks live; `behind` is the last of them."""
    return loss(
        f"{reason}, but every rank lives; {_names([behind])} is furthest behind ({_place(behind)})",
        None,
    )


def first_line_of(error: BaseException) -> str:
    """The first line of what `error` says, or its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def loss(what: str, rank: int | None) -> Verdict:
    """The run ends, and can go on without `rank` (None: none is known to be gone)."""
    line = f"{what}: stopping; the same command goes on from the last checkpoint"
    return Verdict(line, GOES_ON, rank)


def _names(ranks: Sequence[Heartbeat]) -> str:
    """Such as "rank 1 (node a07, pid 4242)" or "ranks 8, 9, 10 (node a08)"."""
    if len(ranks) == 1:
        return f"rank {ranks[0].rank} (node {ranks[0].host}, pid {ranks[0].pid})"
    listed = ", ".join(str(each.rank) for each in ranks[:NAMED_RANKS])
    more = f" and {len(ranks) - NAMED_RANKS} more" if len(ranks) > NAMED_RANKS else ""
    hosts = list(dict.fromkeys(each.host for each in ranks))
    kind = "node" if len(hosts) == 1 else "nodes"
    return f"ranks {listed}{more} ({kind} {', '.join(hosts[:NAMED_RANKS])})"


def _place(rank: Heartbeat) -> str:
    return f"at step {rank.step}, {rank.phase}"


_VERDICT = "verdict"
_heartbeats, _verdicts = TypeAdapter(Heartbeat), TypeAdapter(Verdict)


@dataclass(frozen=True)
class Board:
    """One rank's connection, and the ranks it watches: rank 0 all others, the others rank 0.

    Every call may raise `STORE_ERRORS`, or hang where the store's host is stopped.
    """

    store: RankStore
    watched: Sequence[int]

    @classmethod
    def connect(cls, rank: int, world_size: int, *, timeout_seconds: float) -> Self:
        """The board of this start."""
        store = connect_to_store(rank=rank, ranks=world_size, timeout_seconds=timeout_seconds)
        store.compare_set(_VERDICT, "", "")  # a read waits for a key that does not exist
        return cls(store, range(1, world_size) if rank == 0 else range(1))

    def exchange(
        self, own: Heartbeat, *, wait_for_all: bool
    ) -> tuple[Verdict | None, list[Heartbeat]]:
        """Post `own`; (the verdict if there is one, the heartbeats of the watched).

        With `wait_for_all` these are none until all are there.
        """
        self.store.set(_key(own.rank), _heartbeats.dump_json(own).decode())
        keys = [_key(rank) for rank in self.watched]
        if wait_for_all and not self.store.check(keys):
            keys = []
        verdict, *heard = self.store.multi_get([_VERDICT, *keys])
        heartbeats = [_heartbeats.validate_json(each) for each in heard]
        return (_verdicts.validate_json(verdict) if verdict else None), heartbeats

    def first_of(self, proposal: Verdict) -> Verdict:
        """The verdict that was posted first, and is everybody's: `proposal`, or an earlier one."""
        posted = _verdicts.dump_json(proposal).decode()
        return _verdicts.validate_json(self.store.compare_set(_VERDICT, "", posted))

    def missing(self) -> list[int]:
        """The watched ranks that never posted."""
        return [rank for rank in self.watched if not self.store.check([_key(rank)])]


def _key(rank: int) -> str:
    return f"rank/{rank}"

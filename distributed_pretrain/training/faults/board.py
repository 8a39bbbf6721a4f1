"""The key-value store beside the collectives, where ranks post heartbeats and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from pydantic import TypeAdapter

from distributed_pretrain.ranks import RankStore, connect_to_store
from distributed_pretrain.training.faults.messages import Heartbeat, Verdict

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

"""Signs of life between ranks, and who is silent or behind by those heard so far."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from enum import StrEnum


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

    def to_json(self) -> str:
        """One line, about 140 bytes."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Heartbeat:
        """The heartbeat that `to_json` wrote."""
        fields = json.loads(text)
        return cls(**fields | {"state": State(fields["state"])})


@dataclass
class _Heard:
    heartbeat: Heartbeat
    since: float
    moved: float


class Peers:
    """The watched ranks. `now` is in seconds of any clock that only this process reads."""

    def __init__(self) -> None:
        self._heard: dict[int, _Heard] = {}

    def __bool__(self) -> bool:
        return bool(self._heard)

    def hear(self, heartbeat: Heartbeat, now: float) -> None:
        """Take in what was read: a beat seen before says nothing new."""
        last = self._heard.get(heartbeat.rank)
        if last is None:
            self._heard[heartbeat.rank] = _Heard(heartbeat, since=now, moved=now)
        elif heartbeat.beat != last.heartbeat.beat:
            if heartbeat.place != last.heartbeat.place:
                last.moved = now
            last.heartbeat, last.since = heartbeat, now

    def last_of(self, rank: int) -> Heartbeat | None:
        """The last heartbeat of `rank`, None if there was none."""
        heard = self._heard.get(rank)
        return heard.heartbeat if heard else None

    @property
    def broken(self) -> bool:
        """Whether a collective of any of them broke."""
        return any(each.heartbeat.state is State.BROKEN for each in self._heard.values())

    def awaited(self, now: float, *, patience_seconds: float) -> bool:
        """Whether any of them still takes part and was heard within `patience_seconds`."""
        return any(now - each.since < patience_seconds for each in self._watched())

    def silent(
        self, now: float, *, limit_seconds: float, spread_seconds: float
    ) -> tuple[list[Heartbeat], float]:
        """(the ranks silent for longer than the limit, the longest silence in seconds).

        With one beyond the limit, those within `spread_seconds` of it count too: the ranks of a
        node fall silent together.
        """
        silences = [(now - each.since, each.heartbeat) for each in self._watched()]
        longest = max((silence for silence, _ in silences), default=0.0)
        if longest <= limit_seconds:
            return [], longest
        return [peer for silence, peer in silences if silence > longest - spread_seconds], longest

    def furthest_behind(self, own: Heartbeat, own_moved: float) -> tuple[Heartbeat, float]:
        """(the rank at the lowest place, among several the first to stop; the last move of any).

        Ranks that finished do not count.
        """
        ranks = [(own, own_moved), *((each.heartbeat, each.moved) for each in self._watched())]
        behind, _ = min(ranks, key=lambda rank: (rank[0].place, rank[1]))
        return behind, max(moved for _, moved in ranks)

    def _watched(self) -> list[_Heard]:
        unwatched = (State.FINISHED, State.LEAVING)
        return [each for each in self._heard.values() if each.heartbeat.state not in unwatched]

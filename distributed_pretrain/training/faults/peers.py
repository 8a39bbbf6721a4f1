"""Which ranks are gone or hang, by the heartbeats heard so far and what became of collectives."""

from __future__ import annotations

from dataclasses import dataclass, field

from distributed_pretrain.training.faults.messages import (
    Heartbeat,
    State,
    Verdict,
    silence,
    standstill,
)

# After a collective broke, so much silence is enough: the break is evidence by itself.
SUSPICIOUS_INTERVALS = 3


@dataclass(frozen=True)
class Breakage:
    """A collective of this rank that broke: its error in a line, and when."""

    reason: str
    since: float


@dataclass
class _Heard:
    heartbeat: Heartbeat
    since: float
    moved: float


@dataclass(frozen=True)
class Peers:
    """The ranks that one rank watches; times are in seconds of any clock that only it reads."""

    is_rank_zero: bool
    timeout_seconds: float
    interval_seconds: float
    hang_timeout_seconds: float | None = None
    _heard: dict[int, _Heard] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self._heard)

    @property
    def suspicious_seconds(self) -> float:
        """The silence that is a loss once a collective broke."""
        return min(SUSPICIOUS_INTERVALS * self.interval_seconds, self.timeout_seconds)

    def hear(self, heartbeat: Heartbeat, now: float) -> None:
        """Take in what was read: a beat seen before says nothing new."""
        last = self._heard.setdefault(heartbeat.rank, _Heard(heartbeat, since=now, moved=now))
        if heartbeat.beat != last.heartbeat.beat:
            if heartbeat.place != last.heartbeat.place:
                last.moved = now
            last.heartbeat, last.since = heartbeat, now

    def last_of(self, rank: int) -> Heartbeat | None:
        """The last heartbeat of `rank`, None if there was none."""
        heard = self._heard.get(rank)
        return heard.heartbeat if heard else None

    def awaited(self, now: float) -> bool:
        """Whether any of them still takes part and was heard of late."""
        return any(now - each.since < self.suspicious_seconds for each in self._taking_part())

    def verdict(
        self, now: float, own: Heartbeat, own_moved: float, breakage: Breakage | None = None
    ) -> Verdict | None:
        """What the evidence asks for: some are silent, a collective broke, or nobody moves on.

        `own` is this rank's place, where it is since `own_moved`.
        """
        heard = self._heard.values()
        broke = breakage or any(each.heartbeat.state is State.BROKEN for each in heard)
        limit = self.suspicious_seconds if broke else self.timeout_seconds
        silences = [(now - each.since, each.heartbeat) for each in self._taking_part()]
        longest = max((seconds for seconds, _ in silences), default=0.0)
        if longest > limit:
            # The ranks of a node fall silent together.
            together = longest - self.interval_seconds
            return silence([peer for seconds, peer in silences if seconds > together], longest)
        # The rank at the lowest place, among several the first to stop.
        ranks = [(own, own_moved), *((each.heartbeat, each.moved) for each in self._taking_part())]
        behind, _ = min(ranks, key=lambda rank: (rank[0].place, rank[1]))
        # Rank 0 sees all ranks, and judges first.
        patience = self.timeout_seconds * (1 if self.is_rank_zero else 2)
        if breakage is not None and now - breakage.since > patience:
            return standstill(breakage.reason, behind)
        still, hang = now - max(moved for _, moved in ranks), self.hang_timeout_seconds
        if self.is_rank_zero and self._heard and hang is not None and still > hang:
            return standstill(f"no rank moved on for {still:.0f} s", behind)
        return None

    def _taking_part(self) -> list[_Heard]:
        ended = (State.FINISHED, State.LEAVING)
        return [each for each in self._heard.values() if each.heartbeat.state not in ended]

"""Who is gone or hangs, by the heartbeats heard so far and what became of the collectives."""

from __future__ import annotations

from dataclasses import dataclass

from distributed_pretrain.training.faults.heartbeats import Heartbeat, Peers
from distributed_pretrain.training.faults.verdicts import Verdict, silence, standstill

# After a collective broke, so much silence is enough: the break is evidence by itself.
SUSPICIOUS_INTERVALS = 3


@dataclass(frozen=True)
class Breakage:
    """A collective of this rank that broke: its error in a line, and when."""

    reason: str
    since: float


@dataclass(frozen=True)
class Judgement:
    """What one rank makes of the peers it watches; times are in seconds of its own clock."""

    peers: Peers
    is_rank_zero: bool
    timeout_seconds: float
    interval_seconds: float
    hang_timeout_seconds: float | None

    @property
    def suspicious_seconds(self) -> float:
        """The silence that is a loss once a collective broke."""
        return min(SUSPICIOUS_INTERVALS * self.interval_seconds, self.timeout_seconds)

    def of(
        self, now: float, own: Heartbeat, own_moved: float, breakage: Breakage | None
    ) -> Verdict | None:
        """The verdict that the evidence asks for, if it does."""
        is_broken = breakage is not None or self.peers.broken
        lost, seconds = self.peers.silent(
            now,
            limit_seconds=self.suspicious_seconds if is_broken else self.timeout_seconds,
            spread_seconds=self.interval_seconds,
        )
        if lost:
            return silence(lost, seconds)
        # A collective broke though nobody is silent, or nobody moves on.
        behind, last_move = self.peers.furthest_behind(own, own_moved)
        if breakage is not None:
            # Rank 0 sees all ranks, and judges first.
            patience = self.timeout_seconds * (1 if self.is_rank_zero else 2)
            if now - breakage.since > patience:
                return standstill(breakage.reason, behind)
        still, hang = now - last_move, self.hang_timeout_seconds
        if self.is_rank_zero and self.peers and hang is not None and still > hang:
            return standstill(f"no rank moved on for {still:.0f} s", behind)
        return None

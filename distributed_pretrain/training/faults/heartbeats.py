"""The signs of life that ranks give each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
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

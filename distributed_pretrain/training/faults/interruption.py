"""Signals that ask a run to save and leave."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Self

# sysexits' EX_TEMPFAIL: not done, and the same command goes on ("requeue me").
GOES_ON = 75


# Ctrl-C; the end of an allocation, and torchrun to the ranks beside a dead one; Slurm's warning
# before the time limit or a preemption, as submitit asks for it.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


class InterruptionFlag:
    """Within it, SIGINT, SIGTERM and SIGUSR2 are remembered; the trainer looks between steps.

    A handler that did more could deadlock: other ranks may be inside a collective.
    """

    def __init__(self) -> None:
        self.raised = False

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._set) for number in SIGNALS}
        return self

    def _set(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.raised = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

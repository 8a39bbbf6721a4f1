"""Signals that ask a run to save and leave."""

from __future__ import annotations

import signal
from types import FrameType

# sysexits' EX_TEMPFAIL: not done, and the same command goes on.
INTERRUPTED_EXIT_STATUS = 75


class InterruptionFlag:
    """Remembers SIGINT and SIGTERM; the trainer looks at it at step boundaries.

    A handler that did more could deadlock: other ranks may be inside a collective.
    """

    def __init__(self) -> None:
        self.raised = False
        self._previous = {s: signal.signal(s, self._set) for s in (signal.SIGINT, signal.SIGTERM)}

    def _set(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.raised = True

    def restore(self) -> None:
        """Give the signals their earlier handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)

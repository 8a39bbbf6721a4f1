"""The errors that end a rank because of another one."""

from __future__ import annotations

from data_shards.errors import RunError


class PeerError(RunError):
    """The run ends because of another rank: all that is to be said is on stderr already."""

    is_said = True

    def __init__(self, line: str, exit_status: int) -> None:
        super().__init__(line)
        self.exit_status = exit_status


class RankLostError(PeerError):
    """A rank is gone, or hangs. The message names it."""


class RankFailedError(PeerError):
    """A rank failed by itself, and says why. The message is the first line of its error."""

"""The statuses that a rank's errors leave with, and the errors that are another rank's."""

from __future__ import annotations

from data_shards.errors import InputError


class PeerError(RuntimeError):
    """The run ends because of another rank: all that is to be said is on stderr already.

    A command that meets it prints nothing and leaves with `exit_status`.
    """

    def __init__(self, line: str, exit_status: int) -> None:
        super().__init__(line)
        self.exit_status = exit_status


class RankLostError(PeerError):
    """A rank is gone, or hangs. The message names it."""


class RankFailedError(PeerError):
    """A rank failed by itself, and says why. The message is the first line of its error."""


def exit_status_of(error: BaseException) -> int:
    """The status a command leaves with: 2 for the user's errors, 130 for Ctrl-C, else 1."""
    if isinstance(error, PeerError):
        return error.exit_status
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 2 if isinstance(error, InputError | OSError) else 1

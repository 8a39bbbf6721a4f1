"""What users see as one line: exceptions, and warnings."""

from __future__ import annotations

import sys

# Why an image is refused whose file is not there: a reason that is counted, and has a setting.
MISSING_IMAGE = "missing image"


class InputError(ValueError):
    """Something the user gave is wrong: one line that says what, where and what to do.

    Commands print it without a traceback and exit with status 2; everything else is our own
    fault and keeps its traceback.
    """


class RunError(RuntimeError):
    """A command cannot go on though its input is good: one line that says why and what to do.

    Commands leave with `exit_status`; with `is_said` the line is on stderr already.
    """

    exit_status = 1
    is_said = False


def warn(what: str) -> None:
    """Say on stderr, in one line, what needs nobody's answer now."""
    print(f"warning: {' '.join(what.splitlines())}", file=sys.stderr, flush=True)

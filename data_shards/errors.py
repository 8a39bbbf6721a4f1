"""The exceptions that users see as one line."""


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

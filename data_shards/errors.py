"""The one exception that users see."""


class InputError(ValueError):
    """Something the user gave is wrong: one line that says what, where and what to do.

    Commands print it without a traceback and exit with status 2; everything else is our own
    fault and keeps its traceback.
    """

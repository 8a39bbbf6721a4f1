"""A full disk, told as the user's matter that it is."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_shards.errors import InputError

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def refuse_full_disk(folder: Path, *, what: str, option: str) -> Iterator[None]:
    """Raise InputError where there is no space to write `what` into `folder`.

    A failed write does not know its file, so the caller names the folder and the `option` of
    the profile that moves it.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        raise InputError(
            f"{folder}: no space left to write {what} ({error.strerror}): free some or pass "
            f"another {option}=...; what is finished is kept and the same command goes on"
        ) from error

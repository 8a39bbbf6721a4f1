"""Files that hold either their old content or all of the new; a full disk as a user's matter."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_shards.errors import InputError

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_text_atomically(path: Path, text: str, *, workplace: Path | None = None) -> None:
    """Write `text` so that `path` either keeps its old content or holds all of the new."""
    write_bytes_atomically(path, text.encode(), workplace=workplace)


def write_bytes_atomically(
    path: Path, payload: bytes, *, sync: bool = True, workplace: Path | None = None
) -> None:
    """Write `payload` so that `path` either keeps its old content or holds all of the new.

    `sync=False` is for many small files that a marker vouches for: it promises this for a full
    disk and a killed process, but not for a power cut. What is unfinished lies beside `path`, or
    in `workplace` (of the same file system) where several processes may write `path` at once.
    """
    temporary = (workplace or path.parent) / f"{path.name}.partial"
    try:
        with temporary.open("wb") as file:
            file.write(payload)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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

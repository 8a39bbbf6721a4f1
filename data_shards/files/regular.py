"""Files that anybody may have damaged or planted, read so that nothing hangs or runs."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
from pathlib import Path
from typing import Any

from data_shards.errors import InputError

# An index of a million studies takes less; a file of zeros may be of any size.
MOST_BYTES_OF_A_DOCUMENT = 2**30
_KINDS = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}


def open_regular(path: Path, flags: int = os.O_RDONLY) -> io.FileIO:
    """`path` opened for reading, or with other `flags` of `os.open`.

    Raises InputError where it is a pipe, a device or a folder, which would wait for ever or never
    end, and OSError as the system does.
    """
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        refuse_what_is_no_file(path)  # a folder or a socket is not opened for writing or at all
        raise error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        refuse_what_is_no_file(path)
    return io.FileIO(descriptor, "rb" if flags & os.O_ACCMODE == os.O_RDONLY else "ab+")


def refuse_what_is_no_file(path: Path) -> None:
    """Raise InputError where something is at `path`, and it is no file."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if not path.is_symlink():
            return
        what = f"a link to {path.readlink()}, where nothing is"
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        what = "a link that leads to itself"
    else:
        if stat.S_ISREG(mode):
            return
        what = next((name for is_one, name in _KINDS.items() if is_one(mode)), "a device")
    raise InputError(f"{path}: {what}, and should be a file: move it away")


def read_regular(path: Path) -> bytes:
    """All that is in a file; raises as `open_regular`."""
    with open_regular(path) as file:
        return file.read()


def read_document(path: Path) -> bytes:
    """All that is in a file of text of a size that can be meant, else InputError."""
    with open_regular(path) as file:
        return document_in(file, path)


def document_in(file: io.FileIO, path: Path) -> bytes:
    """The same of `path` that is open."""
    size = os.fstat(file.fileno()).st_size
    if size > MOST_BYTES_OF_A_DOCUMENT:
        raise InputError(f"{path}: {size:,} bytes are no such file: copy it again")
    return file.read()


def parse_json(payload: bytes | str) -> Any:
    """The value. Raises ValueError for all that is no JSON, also for brackets without end.

    A key that is there twice is damage too: what readers take of it differs.
    """
    try:
        return json.loads(payload, object_pairs_hook=object_of)
    except RecursionError as error:
        raise ValueError("too deep") from error


def object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON by its pairs. Raises ValueError for a key that is there twice."""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in values if keys.count(key) > 1)
        raise ValueError(f"{twice!r} is there twice: keep one")
    return values

"""Files that anybody may have damaged or planted, read so that nothing hangs or runs."""

from __future__ import annotations

import io
import json
import os
import stat
from pathlib import Path
from typing import Any

from data_shards.errors import InputError

# An index of a million studies takes less; a file of zeros may be of any size.
_MOST_BYTES = 2**30


def open_regular(path: Path, flags: int = os.O_RDONLY) -> io.FileIO:
    """`path` opened for reading, or with other `flags` of `os.open`.

    Raises InputError where it is a pipe, a device or a folder, which would wait for ever or never
    end, and OSError as the system does.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path}: not a file but a pipe, a device or a folder: move it away")
    return io.FileIO(descriptor, "rb" if flags & os.O_ACCMODE == os.O_RDONLY else "ab+")


def read_regular(path: Path) -> bytes:
    """All that is in a file of a size that can be meant; raises as `open_regular`."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > _MOST_BYTES:
            raise InputError(f"{path}: {size:,} bytes are no such file: copy it again")
        return file.read()


def parse_json(payload: bytes | str) -> Any:
    """The value. Raises ValueError for all that is no JSON, also for brackets without end."""
    try:
        return json.loads(payload)
    except RecursionError as error:
        raise ValueError("too deep") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """The object that a file holds. Raises InputError where it holds none, naming it."""
    try:
        found = parse_json(read_regular(path))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{path}: damaged: not a JSON object")
    return found

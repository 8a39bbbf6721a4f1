"""A lock that processes on several machines agree on, where their file system has locks."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data_shards.errors import InputError

_SECONDS_TO_SHARE = 1.0
_SECONDS_BETWEEN_TRIES = 0.05
_WITHOUT_LOCKS: set[int] = set()


@contextmanager
def locked(
    path: Path, *, shared: bool = False, busy: str, wait: bool = False, patience_seconds: float = 0
) -> Iterator[None]:
    """Hold a lock on the file `path`, which is there only meanwhile; folders are made.

    Where another holds it for longer than `patience_seconds`, raises InputError(`busy`), or prints
    it and waits; `{holder}` in it is who that is. `shared` locks exclude only those that are not.
    The lock ends with the process, however that ends. A file, not its folder, is locked: network
    file systems keep locks of folders to one machine.
    """
    operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    descriptor = _open_locked(path, operation, busy, wait, patience_seconds)
    with suppress(OSError):  # a full disk keeps nobody from holding a lock
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    try:
        yield
    finally:
        # The last of those who share it removes the file.
        if _try_lock(descriptor, fcntl.LOCK_EX):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _open_locked(path: Path, operation: int, busy: str, wait: bool, patience_seconds: float) -> int:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Writable: network file systems give no exclusive lock otherwise.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except (FileNotFoundError, FileExistsError):
            if os.path.lexists(path.parent) and not path.parent.is_dir():
                raise
            # The folder was removed meanwhile by who was done with it.
            continue
        try:
            _lock(descriptor, operation, busy, wait, patience_seconds)
            with suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(descriptor)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        # Removed by its last holder before we had it: a lock that nobody else would see.
        os.close(descriptor)


def _lock(descriptor: int, operation: int, busy: str, wait: bool, patience_seconds: float) -> None:
    # One that shares the lock has it alone for an instant when it ends.
    least = _SECONDS_TO_SHARE if operation == fcntl.LOCK_SH else 0
    deadline = time.monotonic() + max(least, patience_seconds)
    while not _try_lock(descriptor, operation):
        if time.monotonic() < deadline:
            time.sleep(_SECONDS_BETWEEN_TRIES)
            continue
        holder = os.pread(descriptor, 1000, 0).decode(errors="replace").strip()
        busy = busy.replace("{holder}", holder or "another process")
        if not wait:
            raise InputError(busy)
        print(busy, file=sys.stderr, flush=True)
        fcntl.flock(descriptor, operation)


def _try_lock(descriptor: int, operation: int) -> bool:
    """Whether nobody else holds a lock that excludes this one."""
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        # A file system without locks keeps nobody out.
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode):
            _say_that_none_holds(found.st_dev, descriptor, str(error.strerror))
    return True


def _say_that_none_holds(device: int, descriptor: int, why: str) -> None:
    """Once for each file system."""
    if device in _WITHOUT_LOCKS:
        return
    _WITHOUT_LOCKS.add(device)
    path = "this folder"
    with suppress(OSError):  # where there is no /proc
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink().parent)
    print(
        f"warning: {path}: its file system keeps no locks ({why}): nothing keeps out a second "
        "process that writes there, so start one at a time",
        file=sys.stderr,
        flush=True,
    )

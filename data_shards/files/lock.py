"""A lock that processes on several machines agree on, where their file system has locks."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from data_shards.errors import InputError, warn
from data_shards.files.regular import open_regular

_SECONDS_TO_SHARE = 1.0
_SECONDS_BETWEEN_TRIES = 0.05
# Others who are done with the folder may remove it between two steps.
_TRIES_TO_OPEN = 100
_WITHOUT_LOCKS: set[int] = set()


class InUseError(InputError):
    """Another process holds the lock."""


@dataclass(frozen=True)
class Lock:
    """One that is held: the open folder and the open file in it."""

    path: Path
    folder: int
    file: int

    def check(self) -> None:
        """Raise InputError where the path no longer leads to what is locked."""
        folder = self.path.parent
        if not _leads_to(folder, self.folder):
            raise InputError(
                f"{folder}: moved or deleted while it was in use: put it back and start again, or "
                "start with its new place"
            )
        if os.path.lexists(self.path) and not _leads_to(self.path, self.file):
            raise InputError(
                f"{self.path}: deleted while it was in use, and another process holds the folder "
                "since: start again when that has ended"
            )


@contextmanager
def locked(
    path: Path, *, shared: bool = False, busy: str, wait: bool = False, patience_seconds: float = 0
) -> Iterator[Lock]:
    """Hold a lock on the file `path`, which is there only meanwhile; folders are made.

    Where another holds it for longer than `patience_seconds`, raises InUseError(`busy`), or prints
    it and waits; `{holder}` in it is who that is. `shared` locks exclude only those that are not.
    The lock ends with the process, however that ends. The folder is locked too, once for all locks
    in it, so that nothing is lost with the file; alone it would not do, for network file systems
    keep locks of folders to one machine.
    """
    operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    lock = _open_locked(path, operation, _Patience(path, busy, wait, patience_seconds))
    with suppress(OSError):  # a full disk keeps nobody from holding a lock
        os.ftruncate(lock.file, 0)
        os.pwrite(lock.file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
    try:
        yield lock
    finally:
        # The last of those who share it removes the file; one that others made since is theirs.
        if _try_lock(lock.file, fcntl.LOCK_EX) and _leads_to(path, lock.file):
            path.unlink(missing_ok=True)
        os.close(lock.file)
        os.close(lock.folder)


@dataclass(frozen=True)
class _Patience:
    path: Path
    busy: str
    wait: bool
    seconds: float

    def lock(self, descriptor: int, operation: int) -> None:
        # One that shares the lock has it alone for an instant when it ends.
        least = _SECONDS_TO_SHARE if operation == fcntl.LOCK_SH else 0
        deadline = time.monotonic() + max(least, self.seconds)
        while not _try_lock(descriptor, operation):
            if time.monotonic() < deadline:
                time.sleep(_SECONDS_BETWEEN_TRIES)
                continue
            busy = self.busy.replace("{holder}", _holder(self.path) or "another process")
            if not self.wait:
                raise InUseError(busy)
            print(busy, file=sys.stderr, flush=True)
            fcntl.flock(descriptor, operation)


def _open_locked(path: Path, operation: int, patience: _Patience) -> Lock:
    while True:
        with contextlib.ExitStack() as opened:
            folder = _open_folder(path.parent)
            opened.callback(os.close, folder)
            patience.lock(folder, operation)
            try:
                # Writable: network file systems give no exclusive lock otherwise. No link: what
                # it leads to would be written over.
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            except FileNotFoundError:
                continue  # the folder was removed meanwhile by who was done with it
            opened.callback(os.close, file)
            patience.lock(file, operation)
            # Else removed before we had it: a lock that nobody else would see.
            if _leads_to(path.parent, folder) and _leads_to(path, file):
                opened.pop_all()
                return Lock(path, folder, file)


def _open_folder(folder: Path) -> int:
    for _ in range(_TRIES_TO_OPEN):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, FileExistsError) as error:
            refused = error
            # A file in its place, or a link that leads nowhere, would be there for ever.
            if os.path.lexists(folder) and not folder.is_dir():
                raise
    # Where no folder can be made: in /proc, or below one that was deleted.
    raise refused


def _leads_to(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    with suppress(OSError, InputError), open_regular(path) as file:
        return file.read(1000).decode(errors="replace").strip()
    return ""


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
    warn(
        f"{path}: its file system keeps no locks ({why}): nothing keeps out a second "
        "process that writes there, so start one at a time",
    )

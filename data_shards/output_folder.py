"""The folder a build writes into: who may write there, and where unfinished files lie.

A whole build has the folder to itself; parts of a build share it, each with a folder inside for
what it has not finished. Bytes do not hang on the locks: a shard that two processes write, where
a network file system has no locks, is the same twice and appears whole.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data_shards.config import Part
from data_shards.records.errors import InputError

_PART_FOLDERS = "part-*-of-*.partial"


@contextmanager
def whole_folder(folder: Path) -> Iterator[None]:
    """Make `folder` and keep all others out of it; an empty one goes again at the end."""
    with _locked(folder, fcntl.LOCK_EX, busy=_busy(folder)):
        try:
            yield
        finally:
            # Not empty: the usual case.
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def part_workplace(folder: Path, part: Part) -> Iterator[Path]:
    """A folder for the unfinished files of `part`, gone again at the end.

    Meanwhile other parts may write into `folder`, but no whole build and nobody else this part.
    """
    own = folder / f"part-{part.number}-of-{part.total}.partial"
    busy = f"{folder}: part {part} is being built already: wait for it"
    with (
        _locked(folder, fcntl.LOCK_SH, busy=_busy(folder)),
        _locked(own, fcntl.LOCK_EX, busy=busy),
    ):
        # Of this part when it was killed.
        for path in own.iterdir():
            shutil.rmtree(path, ignore_errors=True)
        # New with every run: without locks, a second run of the part takes the files of the
        # first away, which then fails, instead of writing into them.
        workplace = Path(tempfile.mkdtemp(dir=own))
        try:
            yield workplace
        finally:
            shutil.rmtree(workplace, ignore_errors=True)
            with suppress(OSError):
                own.rmdir()


def remove_partial_files(folder: Path) -> None:
    """Remove what a killed whole build left. Running parts keep no such file in `folder`."""
    for path in folder.glob("*.partial"):
        if not path.is_dir():
            path.unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Remove what killed parts left: for who has `folder` alone."""
    for path in folder.glob(_PART_FOLDERS):
        if path.is_dir():
            shutil.rmtree(path)


def _busy(folder: Path) -> str:
    return f"{folder}: another build is writing here: wait for it, or pass another output=..."


@contextmanager
def _locked(folder: Path, operation: int, *, busy: str) -> Iterator[None]:
    descriptor = _open_locked(folder, operation, busy)
    try:
        yield
    finally:
        os.close(descriptor)


def _open_locked(folder: Path, operation: int, busy: str) -> int:
    """A descriptor of `folder`, made where it is missing, that holds the lock."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            # Removed, between the two, by who was done with it.
            continue
        except OSError as error:
            raise InputError(
                f"{folder}: cannot hold the shards ({error.strerror}): pass another output=..."
            ) from error
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise InputError(busy) from error
        except OSError:
            # A network file system without locks: nobody is kept out.
            pass
        if _is_at(folder, descriptor):
            return descriptor
        # The lock is of a folder that was removed before we had it.
        os.close(descriptor)


def _is_at(folder: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(folder.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False

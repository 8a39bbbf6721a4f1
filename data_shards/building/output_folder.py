"""The folder a build writes into: who may write there, and where unfinished files lie.

A whole build has the folder to itself; parts of a build share it, each with a folder inside for
what it has not finished. Bytes do not hang on the locks: a shard that two processes write, where
a network file system has no locks, is the same twice and appears whole.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from data_shards.building.settings import Part
from data_shards.errors import InputError
from data_shards.files.lock import locked

_LOCK_NAME = "build.lock"
_PART_FOLDERS = "part-*-of-*.partial"
_RUN_PREFIX = "run-"


@contextmanager
def whole_folder(folder: Path) -> Iterator[None]:
    """Make `folder` and keep all others out of it."""
    with _locked_folder(folder, shared=False):
        yield


@contextmanager
def part_workplace(folder: Path, part: Part) -> Iterator[Path]:
    """A folder for the unfinished files of `part`, gone again at the end.

    Meanwhile other parts may write into `folder`, but no whole build and nobody else this part.
    """
    own = folder / f"part-{part.number}-of-{part.total}.partial"
    busy = f"{folder}: part {part} is being built already: wait for it"
    with (
        _locked_folder(folder, shared=True),
        _removed_if_empty(own),
        locked(own / _LOCK_NAME, busy=busy),
    ):
        # Of this part when it was killed.
        for path in own.glob(f"{_RUN_PREFIX}*"):
            shutil.rmtree(path, ignore_errors=True)
        # New with every run: without locks, a second run of the part takes the files of the
        # first away, which then fails, instead of writing into them.
        workplace = Path(tempfile.mkdtemp(prefix=_RUN_PREFIX, dir=own))
        try:
            yield workplace
        finally:
            shutil.rmtree(workplace, ignore_errors=True)


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


@contextmanager
def _locked_folder(folder: Path, *, shared: bool) -> Iterator[None]:
    """Make and lock `folder`; an empty one goes again at the end."""
    busy = f"{folder}: another build is writing here: wait for it, or pass another output=..."
    with _removed_if_empty(folder), ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / _LOCK_NAME, shared=shared, busy=busy))
        except OSError as error:
            raise InputError(
                f"{folder}: cannot hold the shards ({error.strerror}): pass another output=..."
            ) from error
        yield


@contextmanager
def _removed_if_empty(folder: Path) -> Iterator[None]:
    try:
        yield
    finally:
        # Not empty, or not there.
        with suppress(OSError):
            folder.rmdir()

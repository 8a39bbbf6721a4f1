"""The folder a build writes into: who may write there, and where unfinished files lie.

Bytes do not hang on the locks: a shard that two processes write, where a network file system has
no locks, is the same twice and appears whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from data_shards.errors import InputError
from data_shards.files.lock import locked

_LOCK_NAME = "build.lock"


@contextmanager
def workplace_in(folder: Path, part: str | None) -> Iterator[Path]:
    """Where unfinished files go meanwhile: `folder` itself, or for a part a folder of its own.

    Folders are made, and go again when they stay empty. A whole build keeps all others out, a part
    whole builds and whoever builds the same part. What killed ones left is removed first.
    """
    busy = f"{folder}: another build is writing here: wait for it, or pass another output=..."
    with ExitStack() as stack:
        stack.enter_context(_removed_if_empty(folder))
        try:
            stack.enter_context(locked(folder / _LOCK_NAME, shared=part is not None, busy=busy))
        except OSError as error:
            raise InputError(
                f"{folder}: cannot hold the shards ({error.strerror}): pass another output=..."
            ) from error
        # Running parts keep no such file here; a whole build may lose workers that were killed.
        _remove_files(folder)
        if part is None:
            for left in folder.glob("part-*-of-*.partial"):
                shutil.rmtree(left)
            stack.callback(_remove_files, folder)
            yield folder
            return
        own = folder / f"part-{part.replace('/', '-of-')}.partial"
        busy = f"{folder}: part {part} is being built already: wait for it"
        stack.enter_context(_removed_if_empty(own))
        stack.enter_context(locked(own / _LOCK_NAME, busy=busy))
        for left in own.glob("run-*"):
            shutil.rmtree(left, ignore_errors=True)
        # New with every run: without locks, a second run of the part takes the files of the
        # first away, which then fails, instead of writing into them.
        run = TemporaryDirectory(prefix="run-", dir=own, ignore_cleanup_errors=True)
        yield Path(stack.enter_context(run))


def _remove_files(folder: Path) -> None:
    for path in folder.glob("*.partial"):
        if not path.is_dir():
            path.unlink(missing_ok=True)


@contextmanager
def _removed_if_empty(folder: Path) -> Iterator[None]:
    try:
        yield
    finally:
        # Not empty, or not there.
        with suppress(OSError):
            folder.rmdir()

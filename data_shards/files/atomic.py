"""Files that hold either their old content or all of the new; a full disk as a user's matter."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from data_shards.errors import InputError

# What is being made, and what makes room for it.
_PARTIAL, _REPLACED = ".partial", ".replaced"
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_IN_THE_WAY = "something else is in its place: move that away"
_REMEDIES = {
    errno.ENOENT: "the folder is not there (any more): check the path",
    errno.ENOTDIR: "a file stands where a folder should: check the path",
    errno.EEXIST: _IN_THE_WAY,
    errno.EISDIR: _IN_THE_WAY,
    errno.ENOTEMPTY: _IN_THE_WAY,
    errno.ELOOP: "a link is in its place: remove that",
    errno.EACCES: "let this user read and write there",
    errno.EPERM: "let this user read and write there",
    errno.EROFS: "write to another folder",
    **dict.fromkeys(NO_SPACE, "free some space"),
}


def remedy_of(error: OSError) -> str:
    """What to do about the system's refusal, by its number."""
    return _REMEDIES.get(error.errno or 0, "check the disk and the path")


def write_text_atomically(path: Path, text: str, *, workplace: Path | None = None) -> None:
    """Write `text` so that `path` either keeps its old content or holds all of the new."""
    write_bytes_atomically(path, text.encode(), workplace=workplace)


def write_bytes_atomically(
    path: Path, payload: bytes, *, sync: bool = True, workplace: Path | None = None
) -> None:
    """Write `payload` so that `path` either keeps its old content or holds all of the new.

    See `made_whole` for `sync` and `workplace`.
    """
    with (
        made_whole(path, sync=sync, workplace=workplace) as unfinished,
        unfinished.open("xb") as file,  # anew: what a link there leads to is not ours
    ):
        file.write(payload)


@contextmanager
def made_whole(
    path: Path, *, folder: bool = False, sync: bool = True, workplace: Path | None = None
) -> Iterator[Path]:
    """A free place for a file or link, or a `folder`, which comes to `path` at the block's end.

    `path` keeps what it had until then, and where the block raises; what is unfinished is removed.
    All that was made is on the disk before. `sync=False` is for many small files that a marker
    vouches for: it promises this for a full disk and a killed process, but not for a power cut.
    What is unfinished lies beside `path`, or in `workplace` (of the same file system) where
    several processes may write `path` at once. A folder where a file is to be made is not ours,
    and is left alone: OSError.

    One folder cannot take another's place at once: a process killed right then leaves the old one
    as `path`.replaced, which `tidy_up` puts back.
    """
    unfinished = _partial_of(path, workplace)
    clear = partial(remove, unfinished) if folder else partial(unfinished.unlink, missing_ok=True)
    try:
        clear()
        yield unfinished
        if sync:
            _sync_all(unfinished)
        if folder and os.path.lexists(path):
            replaced = _replaced_of(path)
            path.replace(replaced)  # a rename is over at once, and a removal is not
            unfinished.replace(path)
            remove(replaced)
        else:
            unfinished.replace(path)
    except OSError as error:
        # A failed write does not know its file.
        error.filename = error.filename or str(path)
        raise
    finally:
        with suppress(OSError):  # who writes next tries again
            clear()


def tidy_up(folder: Path, pattern: str) -> None:
    """Remove what kills left of the folders `pattern` that were being made in `folder`.

    Nobody else may be making one.
    """
    for unfinished in folder.glob(f"{pattern}{_PARTIAL}"):
        remove(unfinished)
    for replaced in folder.glob(f"{pattern}{_REPLACED}"):
        path = replaced.with_name(replaced.name.removesuffix(_REPLACED))
        if os.path.lexists(path):
            remove(replaced)
        else:
            replaced.replace(path)


def move(path: Path, to: Path) -> None:
    """Give what is at `path` another name, in place of what has it."""
    if path.is_dir() or to.is_dir():  # a file takes another's place at once, and a folder does not
        remove(to)
    path.replace(to)


def sync(path: Path) -> None:
    """Return when a file, or the list of a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def try_to_write(path: Path) -> None:
    """Find out now, before the work, whether `write_bytes_atomically` can put a file at `path`.

    Its folder is made. Raises InputError where a folder is in its place, and OSError as the
    system does.
    """
    if path.is_dir():
        raise InputError(f"{path}: a folder stands where a file is to be written: move it away")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _partial_of(path, None)
    temporary.unlink(missing_ok=True)
    temporary.touch(exist_ok=False)
    temporary.unlink()


def remove(path: Path) -> None:
    """Remove a file, a folder with all in it, or a link and not what it leads to; or nothing."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)


def _partial_of(path: Path, workplace: Path | None) -> Path:
    return (workplace or path.parent) / f"{path.name}{_PARTIAL}"


def _replaced_of(path: Path) -> Path:
    return path.with_name(f"{path.name}{_REPLACED}")


def _sync_all(path: Path) -> None:
    if path.is_symlink():
        return  # it is a line of its folder
    if path.is_dir():
        for each in path.iterdir():
            _sync_all(each)
    sync(path)


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

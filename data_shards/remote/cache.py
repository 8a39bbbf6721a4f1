"""Files of stores in a folder of this machine that holds no more than it may.

<cache>/<SHA-256 of a manifest>/train-000000.tar   a file, checked before it got its name
<cache>/fetching/<SHA-256 of a file>/   what is being fetched, its lock, and how much room it has
<cache>/evicting/                       the lock of whoever makes room

Manifests lie beside the files, and stay. Threads, processes and ranks that share the folder fetch
each file once. It belongs to one machine, or to a file system with locks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from data_shards.errors import InputError
from data_shards.files.atomic import NO_SPACE, made_whole, refuse_full_disk, remove
from data_shards.files.lock import locked
from data_shards.files.regular import MOST_BYTES_OF_A_DOCUMENT
from data_shards.records.manifest import MANIFEST_NAME, file_sha256
from data_shards.remote.fetch import DamagedOnArrivalError, fetch
from data_shards.remote.settings import CacheConfig

_FETCHING, _EVICTING, _LOCK, _ROOM = "fetching", "evicting", "held", "room"
_SECONDS_BETWEEN_LOOKS = 0.05
# A folder that is wiped again and again is another's.
_TRIES = 20
_OPTION = "data.cache.folder"

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Expected:
    """What a file is to be: its SHA-256 and, where that is known before, its bytes."""

    sha256: str
    size_bytes: int | None

    def lies_at(self, path: Path) -> bool:
        """Whether it does: what has its name was checked, so that a known size tells a cut."""
        try:
            if self.size_bytes is None:
                return file_sha256(path) == self.sha256
            return path.stat().st_size == self.size_bytes
        except (FileNotFoundError, NotADirectoryError):
            return False

    def check(self, path: Path) -> None:
        """Raise DamagedOnArrivalError for any other file."""
        found = path.stat().st_size
        if self.size_bytes not in (None, found):
            raise DamagedOnArrivalError(f"{found:,} of its {self.size_bytes:,} bytes arrived")
        if (sha256 := file_sha256(path)) != self.sha256:
            how = "other bytes arrived than the manifest's checksum is of"
            # Of a file of unknown size none can tell whether all of it came.
            raise DamagedOnArrivalError(how, whole=sha256 if self.size_bytes else "")


def cached(config: CacheConfig, path: Path, address: str, expected: Expected) -> None:
    """Have the file at `address` lie at `path`, a place in the cache, if it does not yet.

    Raises InputError for a file larger than the cache, for one that finds no room beside those that
    others fetch, for a folder that cannot be written and for a full disk, and as `fetch` does.
    """
    in_cache(config, lambda: _fetched(config, path, address, expected))


def in_cache(config: CacheConfig, write: Callable[[], ResultT]) -> ResultT:
    """What `write` returns, which writes into the cache's folder; anew if that is wiped meanwhile.

    Raises InputError where the folder cannot be written and where the disk is full.
    """
    tries = 1
    with _refuse_unwritable(config):
        while True:
            try:
                config.place.mkdir(parents=True, exist_ok=True)
                return write()
            except FileNotFoundError:
                if tries == _TRIES:
                    raise
                tries += 1


def _fetched(config: CacheConfig, path: Path, address: str, expected: Expected) -> None:
    place = config.place / _FETCHING / expected.sha256
    busy = f"{address}: {{holder}} has not fetched it in all that time"
    try:
        with locked(place / _LOCK, busy=busy, patience_seconds=_patience_seconds(config)):
            if expected.lies_at(path):
                return
            try:
                _make_room(config, expected.size_bytes or 0, place, address)
                path.parent.mkdir(parents=True, exist_ok=True)
                with made_whole(path, workplace=place) as unfinished:
                    most_bytes = expected.size_bytes or MOST_BYTES_OF_A_DOCUMENT
                    fetch(address, unfinished, config, expected.check, most_bytes=most_bytes)
                    if expected.size_bytes is None:
                        _make_room(config, unfinished.stat().st_size, place, address)
            finally:
                (place / _ROOM).unlink(missing_ok=True)
    finally:
        with suppress(OSError):  # another waits in it
            place.rmdir()


def _patience_seconds(config: CacheConfig) -> float:
    """How long others are waited for, who may be at the end of all their own patience."""
    return 2 * config.patience_seconds + 2 * config.timeout_seconds


@contextmanager
def _refuse_unwritable(config: CacheConfig) -> Iterator[None]:
    with refuse_full_disk(config.place, what="shards of a store", option=_OPTION):
        try:
            yield
        except OSError as error:
            if error.errno in NO_SPACE:
                raise
            raise InputError(
                f"{config.place}: shards cannot be kept there ({error.strerror}): pass another "
                f"{_OPTION}=..."
            ) from error


def touch(path: Path) -> None:
    """Note that a file is used now: it is not the next to make room."""
    with suppress(OSError):  # evicted meanwhile
        os.utime(path)


def _make_room(config: CacheConfig, size_bytes: int, place: Path, address: str) -> None:
    """Have so many bytes kept free for what comes to `place`, as soon as others leave that much."""
    if size_bytes > config.size_bytes:
        raise InputError(
            f"{address}: {size_bytes:,} bytes are more than the cache may hold "
            f"({config.size_gib:g} GiB): raise data.cache.size_gib"
        )
    deadline = time.monotonic() + _patience_seconds(config)
    while not _made_room(config, size_bytes, place):
        if time.monotonic() > deadline:
            raise InputError(
                f"{address}: what others fetch leaves it no room in the {config.size_gib:g} GiB "
                f"of {config.place}: raise data.cache.size_gib"
            )
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _made_room(config: CacheConfig, size_bytes: int, place: Path) -> bool:
    """Whether there is, once the files used longest ago have made room: who reads one, reads on.

    Only what has its room counts: of those who wait, one is always let in.
    """
    root = config.place
    with locked(
        root / _EVICTING / _LOCK,
        busy=f"{root}: {{holder}} makes room in it without end",
        patience_seconds=2 * config.timeout_seconds,
    ):
        coming = size_bytes + sum(_sizes_on_their_way(root / _FETCHING, besides=place))
        if coming > config.size_bytes:
            return False
        files = sorted(_files(root))
        held = sum(size for _, size, _ in files)
        for _, size, path in files:
            if held + coming <= config.size_bytes:
                break
            path.unlink(missing_ok=True)
            held -= size
        (place / _ROOM).write_text(str(size_bytes))
        return True


def _files(root: Path) -> Iterator[tuple[float, int, Path]]:
    """When each was used, its bytes, and where it lies."""
    for path in root.glob(f"{'[0-9a-f]' * 64}/*"):
        with suppress(FileNotFoundError):
            found = path.stat()
            if path.name != MANIFEST_NAME:  # small, and read by whoever starts
                yield found.st_mtime, found.st_size, path


def _sizes_on_their_way(fetching: Path, besides: Path) -> Iterator[int]:
    """The bytes that each of the others has room for; what a killed process left is removed."""
    for place in fetching.glob("*"):
        if place == besides:
            continue
        try:
            with locked(place / _LOCK, busy="another fetches it"):
                for left in place.iterdir():
                    if left.name != _LOCK:
                        remove(left)
        except InputError:
            with suppress(OSError, ValueError):  # not yet, or no more
                yield int((place / _ROOM).read_text())
        else:
            with suppress(OSError):
                place.rmdir()

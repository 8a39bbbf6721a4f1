"""Files of stores in a folder of this machine that holds no more than it may.

<cache>/<SHA-256 of a manifest>/train-000000.tar     a file, checked before it got its name
<cache>/fetching/<SHA-256 of a file>.<bytes>/        what is being fetched, and its lock
<cache>/evicting/                                    the lock of whoever makes room

Threads, processes and ranks that share the folder fetch each file once. It belongs to one machine,
or to a file system with locks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from data_shards.errors import InputError
from data_shards.files.atomic import NO_SPACE, made_whole, refuse_full_disk, remove
from data_shards.files.lock import locked
from data_shards.files.regular import MOST_BYTES_OF_A_DOCUMENT
from data_shards.records.manifest import file_sha256
from data_shards.remote.fetch import DamagedOnArrivalError, fetch
from data_shards.remote.settings import CacheConfig

_FETCHING, _EVICTING, _LOCK = "fetching", "evicting", "held"
_OPTION = "data.cache.folder"


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

    Raises InputError for a file larger than the cache, for a folder that cannot be written and for
    a full disk, and as `fetch` does.
    """
    size_bytes = expected.size_bytes or 0
    if size_bytes > config.size_bytes:
        raise InputError(
            f"{address}: {size_bytes:,} bytes are more than the cache may hold "
            f"({config.size_gib:g} GiB): raise data.cache.size_gib"
        )
    place = config.place / _FETCHING / f"{expected.sha256}.{size_bytes}"
    try:
        with (
            refuse_unwritable(config),
            locked(
                place / _LOCK,
                busy=f"{address}: {{holder}} has not fetched it in all that time",
                # The others may be at the end of all their patience.
                patience_seconds=2 * config.patience_seconds + 2 * config.timeout_seconds,
            ),
        ):
            if expected.lies_at(path):
                return
            _make_room(config, size_bytes, besides=place)
            path.parent.mkdir(parents=True, exist_ok=True)
            with made_whole(path, workplace=place) as unfinished:
                most = MOST_BYTES_OF_A_DOCUMENT if expected.size_bytes is None else size_bytes
                fetch(address, unfinished, config, expected.check, most_bytes=most)
    finally:
        with suppress(OSError):  # another waits in it
            place.rmdir()


@contextmanager
def refuse_unwritable(config: CacheConfig) -> Iterator[None]:
    """Have the cache's folder, or raise InputError; also where the disk is full meanwhile."""
    with refuse_full_disk(config.place, what="shards of a store", option=_OPTION):
        try:
            config.place.mkdir(parents=True, exist_ok=True)
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


def _make_room(config: CacheConfig, size_bytes: int, *, besides: Path) -> None:
    """Remove the files used longest ago, until so many bytes more fit beside what is on its way.

    Whoever has one open reads on. `besides` is the place of what is to come.
    """
    root = config.place
    with locked(
        root / _EVICTING / _LOCK,
        busy=f"{root}: {{holder}} makes room in it without end",
        patience_seconds=2 * config.timeout_seconds,
    ):
        coming = sum(_sizes_on_their_way(root / _FETCHING, besides))
        files = sorted(_files(root))
        held = sum(size for _, size, _ in files)
        for _, size, path in files:
            if held + coming + size_bytes <= config.size_bytes:
                break
            path.unlink(missing_ok=True)
            held -= size


def _files(root: Path) -> Iterator[tuple[float, int, Path]]:
    """When each was used, its bytes, and where it lies."""
    for path in root.glob(f"{'[0-9a-f]' * 64}/*"):
        with suppress(FileNotFoundError):
            found = path.stat()
            yield found.st_mtime, found.st_size, path


def _sizes_on_their_way(fetching: Path, besides: Path) -> Iterator[int]:
    """Of what others fetch now; what a killed process left is removed."""
    for place in fetching.glob("*.*"):
        if place == besides:
            continue
        try:
            with locked(place / _LOCK, busy="another fetches it"):
                for left in place.iterdir():
                    if left.name != _LOCK:
                        remove(left)
        except InputError:
            yield int(place.name.rpartition(".")[2])
        else:
            with suppress(OSError):
                place.rmdir()

"""Where the files of shards lie: in a folder, or in a store and this machine's cache of it."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from data_shards.errors import InputError
from data_shards.files.atomic import write_bytes_atomically
from data_shards.files.regular import (
    MOST_BYTES_OF_A_DOCUMENT,
    document_in,
    open_regular,
    parse_json,
)
from data_shards.records.manifest import (
    MANIFEST_NAME,
    ShardEntry,
    ShardIndex,
    file_sha256,
    index_is_missing,
    parse_shard_index,
    read_manifest,
)
from data_shards.remote.address import Address
from data_shards.remote.cache import Expected, cached, in_cache, touch
from data_shards.remote.fetch import DamagedOnArrivalError, fetch
from data_shards.remote.settings import CacheConfig

# What a profile says of shards.
Shards: TypeAlias = Annotated[Address | Path, Field(union_mode="left_to_right")]
# What their samples are read from: `ffcv` from the betons beside the tars.
Reader = Literal["tar", "ffcv"]
_TRIES_TO_OPEN = 20


@dataclass(frozen=True)
class ShardFiles:
    """Shards in a folder of this machine, and which of its files are to be read."""

    folder: Path
    reader: Reader = field(default="tar", kw_only=True)

    @classmethod
    def of(cls, shards: Path | ShardFiles) -> ShardFiles:
        """The files of a folder, or what these are already."""
        return shards if isinstance(shards, ShardFiles) else ShardFiles(shards)

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def is_remote(self) -> bool:
        """Whether files come from elsewhere when they are asked for, and may go again."""
        return False

    def path(self, name: str) -> Path:
        """Where the file `name` lies, if it is there."""
        return self.folder / name

    def told(self, name: str) -> str:
        """What messages call the file `name`."""
        return str(self.folder / name)

    def manifest_folder(self) -> Path:
        """The folder, with its manifest if there is one."""
        return self.path(MANIFEST_NAME).parent

    def open(self, name: str) -> io.FileIO:
        """The file `name`, opened for reading. Raises as `path` and as `open_regular`."""
        return open_regular(self.path(name))

    def index_bytes(self, entry: ShardEntry) -> bytes:
        """All of a shard's index. Raises InputError where there is none, and as `open`."""
        path = self.folder / entry.index_name
        try:
            with self.open(entry.index_name) as file:
                return document_in(file, path)
        except (FileNotFoundError, NotADirectoryError):
            raise index_is_missing(path) from None

    def read_index(self, entry: ShardEntry) -> ShardIndex:
        """The same read. Raises InputError too for one that is malformed, or not the manifest's."""
        path = self.folder / entry.index_name
        return parse_shard_index(self.index_bytes(entry), path, sha256=entry.index_sha256)

    def mended(self, name: str) -> bool:
        """Whether a file that was found damaged is another now."""
        del name
        return False


@dataclass(frozen=True)
class RemoteShardFiles(ShardFiles):
    """Shards in a store, whose files come to `folder`, in the cache, as they are asked for.

    They are those of one manifest, whatever is put into the store later.
    """

    address: Address
    manifest_bytes: bytes
    cache: CacheConfig

    def __str__(self) -> str:
        return self.address

    @property
    def is_remote(self) -> bool:
        """As it says."""
        return True

    def told(self, name: str) -> str:
        """Its address."""
        return self.address.file(name)

    def path(self, name: str) -> Path:
        """Where the file `name` of the manifest lies, whole; it is fetched if it was not there.

        Raises InputError and StoreError, which name file and address.
        """
        path = self.folder / name
        if name == MANIFEST_NAME:
            self._keep_manifest()
            return path
        expected = self._files[name]
        if not expected.lies_at(path):
            cached(self.cache, path, self.address.file(name), expected)
        touch(path)
        return path

    def open(self, name: str) -> io.FileIO:
        """The same, though another process may remove the file between two steps.

        Raises InputError where it goes again and again.
        """
        for _ in range(_TRIES_TO_OPEN):
            with suppress(FileNotFoundError):
                return open_regular(self.path(name))
        raise InputError(
            f"{self.address.file(name)}: removed from {self.folder} as often as it is fetched: "
            "raise data.cache.size_gib"
        )

    def mended(self, name: str) -> bool:
        """Whether a file that was found damaged is another now: fetched again, if it had to be."""
        path = self.folder / name
        with suppress(FileNotFoundError):
            if file_sha256(path) == self._files[name].sha256:
                return False  # so it was written
            path.unlink(missing_ok=True)
        self.path(name)
        return True

    def _keep_manifest(self) -> None:
        path = self.folder / MANIFEST_NAME
        if not (path.is_file() and path.read_bytes() == self.manifest_bytes):
            in_cache(self.cache, self._write_manifest)

    def _write_manifest(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.cache.place, ignore_cleanup_errors=True) as own:
            path = self.folder / MANIFEST_NAME
            write_bytes_atomically(path, self.manifest_bytes, workplace=Path(own))

    @cached_property
    def _files(self) -> Mapping[str, Expected]:
        """Each file that the manifest lists; it does not tell the bytes of an index."""
        self._keep_manifest()
        shards = read_manifest(self.folder).shards
        return {each.index_name: Expected(each.index_sha256, None) for each in shards} | {
            each.tar_name: Expected(each.sha256, each.bytes) for each in shards
        }


def shard_files(
    shards: Address | Path, cache: CacheConfig, *, reader: Reader = "tar"
) -> ShardFiles:
    """The files of `shards`; a process asks a store once for its manifest.

    Raises InputError and StoreError where that cannot be had, or is none, and InputError for betons
    in a store: a manifest lists none.
    """
    if not isinstance(shards, Address):
        return ShardFiles(shards, reader=reader)
    if reader != "tar":
        raise InputError(
            f"{shards}: data.reader={reader} reads a folder of this machine: set data.reader=tar, "
            "or copy the shards and write betons there"
        )
    return _remote(shards, cache)


@lru_cache
def _remote(address: Address, cache: CacheConfig) -> RemoteShardFiles:
    at = address.file(MANIFEST_NAME)
    content = in_cache(cache, partial(_fetched_manifest, at, cache))
    if not content.lstrip().startswith(b"{"):
        raise InputError(f"{at}: no manifest, but something else: check the address")
    folder = cache.place / hashlib.sha256(content).hexdigest()
    files = RemoteShardFiles(folder, address, content, cache)
    try:
        read_manifest(files.manifest_folder())
    except InputError as error:
        raise InputError(f"{at}: {error}") from error
    return files


def _fetched_manifest(at: str, cache: CacheConfig) -> bytes:
    with tempfile.TemporaryDirectory(dir=cache.place, ignore_cleanup_errors=True) as own:
        arrived = Path(own) / MANIFEST_NAME
        fetch(at, arrived, cache, _check_manifest, most_bytes=MOST_BYTES_OF_A_DOCUMENT)
        return arrived.read_bytes()


def _check_manifest(path: Path) -> None:
    """Of a page that is no manifest the caller speaks; half of one is to be asked for again."""
    content = path.read_bytes()
    if content.lstrip().startswith(b"{"):
        try:
            parse_json(content)
        except ValueError:
            raise DamagedOnArrivalError("the manifest is cut short or damaged") from None
    elif not content:
        raise DamagedOnArrivalError("nothing arrived")

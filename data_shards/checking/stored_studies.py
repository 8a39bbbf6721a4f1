"""The studies of shards, one by one, wherever they lie: what reports on shards read."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO, NamedTuple

from data_shards.errors import InputError
from data_shards.records.documents import refuse_contradictions
from data_shards.records.indexed_samples import IndexedSample
from data_shards.records.manifest import MANIFEST_NAME, Manifest, ShardEntry, read_manifest
from data_shards.records.study import StudyRecord
from data_shards.remote.shards import ShardFiles

_AGAIN = "delete the tar and build again (`python -m data_shards verify` lists all that is wrong)"


class StoredStudy(NamedTuple):
    """A record, and how its members are read: `read` raises InputError for a damaged one."""

    record: StudyRecord
    read: Callable[[str], bytes]


def shards_of(files: ShardFiles) -> tuple[ShardEntry, ...]:
    """The shards of a finished set. Raises as `manifest_of`."""
    return manifest_of(files).shards


def manifest_of(files: ShardFiles) -> Manifest:
    """What a finished set says of itself. Raises InputError for an unfinished or malformed one."""
    folder = files.manifest_folder()
    manifest = read_manifest(folder)
    refuse_contradictions(manifest.contradictions(), folder / MANIFEST_NAME)
    return manifest


def opened_tar(files: ShardFiles, entry: ShardEntry) -> io.BufferedReader:
    """The tar of a shard. Raises as `ShardFiles.open`."""
    return io.BufferedReader(files.open(entry.tar_name))


def mended_tar(files: ShardFiles, entry: ShardEntry) -> io.BufferedReader:
    """The same; a copy of a store's that was damaged here is fetched again first.

    For who reads all of it: all of it is looked at.
    """
    files.mended(entry.tar_name)
    return opened_tar(files, entry)


def studies_of(files: ShardFiles, entry: ShardEntry) -> Iterator[StoredStudy]:
    """The studies of one shard, in order; members are read while the next is not asked for yet.

    Raises InputError for an index or a record that is not as it was written.
    """
    tar, index = files.told(entry.tar_name), files.read_index(entry)
    refuse_contradictions(index.contradictions(entry), files.told(entry.index_name))
    with mended_tar(files, entry) as file:
        for sample in index.samples:
            read = partial(_read, file, tar, index.tar_bytes, sample)
            try:
                record = StudyRecord.from_json(read("json"))
            except ValueError as error:
                if isinstance(error, InputError):
                    raise
                raise InputError(f"{tar}: {sample.key}.json ({error}): {_AGAIN}") from error
            yield StoredStudy(record, read)


def _read(file: BinaryIO, tar: str, tar_bytes: int, sample: IndexedSample, name: str) -> bytes:
    member = sample.members.get(name)
    payload = None if member is None else member.read(file, tar_bytes=tar_bytes)
    if payload is None:
        raise InputError(f"{tar}: {sample.key}.{name} is missing or damaged: {_AGAIN}")
    return payload

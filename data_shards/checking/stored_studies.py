"""The studies of a shard folder, one by one: what reports on shards read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from data_shards.errors import InputError
from data_shards.records.documents import refuse_contradictions
from data_shards.records.indexed_samples import IndexedSample
from data_shards.records.manifest import MANIFEST_NAME, ShardEntry, read_manifest, read_shard_index
from data_shards.records.study import StudyRecord

_AGAIN = "delete the tar and build again (`python -m data_shards verify` lists all that is wrong)"


class StoredStudy(NamedTuple):
    """A record, and how its members are read: `read` raises InputError for a damaged one."""

    record: StudyRecord
    read: Callable[[str], bytes]


def shards_of(folder: Path) -> tuple[ShardEntry, ...]:
    """The shards of a finished folder. Raises InputError for an unfinished or malformed one."""
    manifest = read_manifest(folder)
    refuse_contradictions(manifest.contradictions(), folder / MANIFEST_NAME)
    return manifest.shards


def studies_of(folder: Path, entry: ShardEntry) -> Iterator[StoredStudy]:
    """The studies of one shard, in order; members are read while the next is not asked for yet.

    Raises InputError for an index or a record that is not as it was written.
    """
    tar, path = folder / entry.tar_name, folder / entry.index_name
    index = read_shard_index(path, sha256=entry.index_sha256)
    refuse_contradictions(index.contradictions(entry), path)
    with tar.open("rb") as file:
        for sample in index.samples:
            read = partial(_read, file, tar, index.tar_bytes, sample)
            try:
                record = StudyRecord.from_json(read("json"))
            except ValueError as error:
                if isinstance(error, InputError):
                    raise
                raise InputError(f"{tar}: {sample.key}.json ({error}): {_AGAIN}") from error
            yield StoredStudy(record, read)


def _read(file: BinaryIO, tar: Path, tar_bytes: int, sample: IndexedSample, name: str) -> bytes:
    member = sample.members.get(name)
    payload = None if member is None else member.read(file, tar_bytes=tar_bytes)
    if payload is None:
        raise InputError(f"{tar}: {sample.key}.{name} is missing or damaged: {_AGAIN}")
    return payload

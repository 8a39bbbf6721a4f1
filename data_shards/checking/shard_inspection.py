"""One shard held against its index, its entry in the manifest, and the records inside it.

It is there for damaged shards: whatever lies in one becomes a line of `problems`.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from data_shards.checking.stored_images import NOT_DECODED, decoded_image
from data_shards.checking.stored_studies import opened_tar
from data_shards.errors import InputError
from data_shards.files.regular import parse_json
from data_shards.images.content import look_at
from data_shards.images.layout import Size
from data_shards.processes import Tick
from data_shards.records.documents import refuse_doubles
from data_shards.records.indexed_samples import IndexedSample
from data_shards.records.manifest import (
    PixelSums,
    ShardEntry,
    ShardIndex,
    parse_shard_index,
)
from data_shards.records.study import StudyRecord
from data_shards.records.tar_members import BadTarError, list_members
from data_shards.remote.fetch import DamagedInStoreError, NotInStoreError
from data_shards.remote.shards import ShardFiles


@dataclass(slots=True)
class Inspection:
    """What one shard holds, for the checks across shards."""

    entry: ShardEntry
    problems: list[str] = field(default_factory=list)
    index: ShardIndex | None = None
    # (Member, digest of its bytes).
    images: list[tuple[str, bytes]] = field(default_factory=list)
    pixels: PixelSums = field(default_factory=PixelSums)
    # What images there is something to say of: (member, kind, detail).
    noted: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def samples(self) -> tuple[IndexedSample, ...]:
        """Those of the index; none where it cannot be read."""
        return tuple(self.index.samples) if self.index is not None else ()


def inspect_shard(files: ShardFiles, entry: ShardEntry, tick: Tick) -> Inspection:
    """Every hash, header, member and record of one shard.

    Raises StoreError and InputError where a store or the cache of it gives nothing.
    """
    found = Inspection(entry)
    if not files.is_remote and not files.path(entry.tar_name).is_file():
        found.problems.append("the tar is missing")
        return found
    try:
        if (problem := _wrong_bytes(files, entry)) and files.mended(entry.tar_name):
            # It was this machine's copy of a store's that was damaged.
            problem = _wrong_bytes(files, entry)
        found.problems += problem
        with opened_tar(files, entry) as tar:
            _inspect_members(files, tar, found, tick)
    except OSError as error:
        found.problems.append(f"cannot be read ({error.strerror or error})")
    except (DamagedInStoreError, NotInStoreError) as error:
        found.problems.append(str(error))
    return found


def _wrong_bytes(files: ShardFiles, entry: ShardEntry) -> list[str]:
    """Where the tar as a whole is not what the manifest says."""
    with opened_tar(files, entry) as tar:
        size, sha256 = os.fstat(tar.fileno()).st_size, hashlib.file_digest(tar, "sha256")
    wrong = []
    if size != entry.bytes:
        wrong.append(f"{size:,} bytes, but the manifest says {entry.bytes:,}")
    if sha256.hexdigest() != entry.sha256:
        wrong.append("sha256 differs from the manifest's")
    return wrong


def _inspect_members(
    files: ShardFiles, tar: io.BufferedReader, found: Inspection, tick: Tick
) -> None:
    entry, size = found.entry, os.fstat(tar.fileno()).st_size
    if (index := _read_index(files, found)) is None:
        return
    found.problems += index.contradictions(entry)
    found.index = index
    found.problems += _wrong_places(tar, size, index)
    for sample in index.samples:
        _inspect_sample(tar, size, sample, found)
        tick()
    if not found.problems and found.pixels != index.pixels:
        found.problems.append("the index's pixel sums are not those of the images")


def _read_index(files: ShardFiles, found: Inspection) -> ShardIndex | None:
    """What the index says, if it can be read."""
    entry = found.entry
    path = files.path(entry.index_name)  # a store's failure is none of the index
    try:
        content = files.index_bytes(entry)
        index = parse_shard_index(content, path)
        refuse_doubles(content, path, "write the index again")
    except InputError as error:
        found.problems.append(str(error))
        return None
    if hashlib.sha256(content).hexdigest() != entry.index_sha256:
        found.problems.append(f"sha256 of {entry.index_name} differs from the manifest's")
    return index


def _wrong_places(file: BinaryIO, size: int, index: ShardIndex) -> Iterator[str]:
    """Members of which the index does not say what the headers of the tar say."""
    said = {
        f"{sample.key}.{name}": (member.offset, member.size)
        for sample in index.samples
        for name, member in sample.members.items()
    }
    there: dict[str, tuple[int, int]] = {}
    try:
        for name, *place in list_members(file, size):
            if name in there:
                yield f"{name}: twice in the tar"
            there[name] = (place[0], place[1])
    except BadTarError as error:
        yield f"not a whole tar ({error})"
    else:
        yield from _differences("(offset, size)", "index", said, "tar", there)


def _differences(
    what: str, one: str, said: Mapping[str, object], other: str, there: Mapping[str, object]
) -> Iterator[str]:
    """The members of which two places do not say the same."""
    for name in sorted(said.keys() | there.keys()):
        if name not in there:
            yield f"{name}: in the {one}, but not in the {other}"
        elif name not in said:
            yield f"{name}: in the {other}, but not in the {one}"
        elif said[name] != there[name]:
            yield f"{name}: {what} {said[name]} in the {one}, {there[name]} in the {other}"


def _inspect_sample(file: BinaryIO, size: int, sample: IndexedSample, found: Inspection) -> None:
    payloads: dict[str, bytes] = {}
    for name, member in sample.members.items():
        payload = member.read(file, tar_bytes=size)
        if payload is None:
            found.problems.append(f"{sample.key}.{name}: checksum differs from the index's")
        elif name != "json" and not name.endswith((".jpg", ".png")):
            found.problems.append(f"{sample.key}.{name}: neither json, jpg nor png")
        else:
            payloads[name] = payload
    said = _inspect_record(payloads.pop("json", None), sample, found)
    sizes: dict[str, Size] = {}
    for name, payload in payloads.items():
        where = f"{sample.key}.{name}"
        try:
            sizes[name] = decoded_image(payload, said.get(name)).size
            if name.endswith(".jpg"):
                found.images.append((where, hashlib.sha256(payload).digest()))
                content = look_at(payload)
                found.pixels += content.sums
                found.noted += [(where, note.kind, note.detail) for note in content.notes]
        except NOT_DECODED as error:
            found.problems.append(f"{where}: cannot be decoded ({error})")
            sizes[name] = said.get(name, (0, 0))
    if said:
        # What could not be read is a problem already.
        unread = {name: said[name] for name in said.keys() & sample.members.keys() - sizes.keys()}
        differences = _differences("(width, height)", "record", said, "tar", sizes | unread)
        found.problems += [f"{sample.key}.{each}" for each in differences]


def _inspect_record(
    payload: bytes | None, sample: IndexedSample, found: Inspection
) -> dict[str, Size]:
    """Width and height of each image and mask by member, as the record says; none without one."""
    if payload is None:
        if "json" not in sample.members:
            found.problems.append(f"{sample.key}: has no record")
        return {}
    try:
        record = StudyRecord.from_json(payload)
        parse_json(payload)
    except ValueError as error:
        found.problems.append(f"{sample.key}.json: cannot be decoded ({error})")
        return {}
    split = found.entry.split
    found.problems += [f"{sample.key}: {each}" for each in sample.contradictions(record, split)]
    image_of = {image.member: image for image in record.images}
    image_of |= {mask.member: record.images[mask.image] for mask in record.masks}
    return {member: (image.width, image.height) for member, image in image_of.items()}

"""A finished shard folder held against its manifest: bytes, members, ids and splits."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from data_shards.errors import InputError
from data_shards.images.content import look_at
from data_shards.images.notes import told
from data_shards.processes import Progress, Tick, map_in_processes, start_server
from data_shards.records.manifest import (
    IndexedSample,
    Manifest,
    PixelSums,
    ShardEntry,
    file_sha256,
    read_manifest,
    read_shard_index,
)
from data_shards.records.study import Split, StudyRecord

SHOWN_PER_SHARD = 5
SHOWN_DUPLICATES = 10


@dataclass(frozen=True, slots=True)
class Verification:
    """What was checked and found. `warnings` are worth a look; `problems` make it unusable."""

    shards: int
    samples: int
    images: int
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    def told(self, folder: Path) -> str:
        """What was found in `folder`, in lines."""
        counts = f"{self.shards:,} shards, {self.samples:,} samples, {self.images:,} images"
        lines = [f"{counts} in {folder}"]
        lines += [f"warning: {each}" for each in self.warnings]
        lines += [f"problem: {each}" for each in self.problems]
        many = f"{len(self.problems)} problems: delete what is damaged, build again"
        return "\n".join([*lines, many if self.problems else "everything is as the manifest says"])


@dataclass(slots=True)
class _Inspection:
    """What one shard holds, for the checks across shards."""

    entry: ShardEntry
    problems: list[str] = field(default_factory=list)
    patient_of_key: list[tuple[str, str]] = field(default_factory=list)
    images: list[tuple[str, bytes]] = field(default_factory=list)
    pixels: PixelSums = field(default_factory=PixelSums)
    noted: list[tuple[str, str, str]] = field(default_factory=list)


def verify_shards(folder: Path, *, workers: int) -> Verification:
    """Every hash, offset and member of the shards in `folder`, and duplicates over all.

    Raises InputError when there is no manifest this release can read; everything else that
    is wrong is listed.
    """
    manifest = read_manifest(folder)
    if workers > 1:
        start_server(preload=("data_shards.checking.verify",))
    total = sum(entry.samples for entry in manifest.shards)
    with Progress("verify", total=total, unit="samples") as progress:
        inspections = map_in_processes(
            _inspect_shard, folder, manifest.shards, workers=workers, progress=progress
        )
    problems = [
        f"{each.entry.tar_name}: {problem}"
        for each in inspections
        for problem in _first(each.problems, SHOWN_PER_SHARD, what="")
    ]
    problems += _problems_across(inspections)
    if not problems:
        problems += _wrong_sums(manifest, inspections)
    images = sum(len(each.images) for each in inspections)
    noted = (note for each in inspections for note in each.noted)
    return Verification(
        shards=len(inspections),
        samples=sum(len(each.patient_of_key) for each in inspections),
        images=images,
        problems=tuple(problems),
        warnings=(*_repeated_images(inspections), *told(noted, images=images)),
    )


def _inspect_shard(folder: Path, entry: ShardEntry, tick: Tick) -> _Inspection:
    found = _Inspection(entry)
    tar = folder / entry.tar_name
    if not tar.is_file():
        found.problems.append("the tar is missing")
        return found
    size = tar.stat().st_size
    if size != entry.bytes:
        found.problems.append(f"{size:,} bytes, but the manifest says {entry.bytes:,}")
    if file_sha256(tar) != entry.sha256:
        found.problems.append("sha256 differs from the manifest's")
    try:
        index = read_shard_index(folder / entry.index_name)
    except InputError as error:
        found.problems.append(str(error))
        return found
    if file_sha256(folder / entry.index_name) != entry.index_sha256:
        found.problems.append(f"sha256 of {entry.index_name} differs from the manifest's")
    said = {
        f"{sample.key}.{name}": (member.offset, member.size)
        for sample in index.samples
        for name, member in sample.members.items()
    }
    try:
        with tarfile.open(tar, "r:") as archive:
            there = {each.name: (each.offset_data, each.size) for each in archive}
        found.problems += _differences("(offset, size)", "index", said, "tar", there)
    except tarfile.TarError as error:
        found.problems.append(f"not a whole tar ({error})")
    with tar.open("rb") as file:
        for sample in index.samples:
            _inspect_sample(file, sample, index.split, found)
            tick()
    if not found.problems and found.pixels != index.pixels:
        found.problems.append("the index's pixel sums are not those of the images")
    return found


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


def _inspect_sample(
    file: io.BufferedReader, sample: IndexedSample, split: Split, found: _Inspection
) -> None:
    found.patient_of_key.append((sample.key, sample.patient_id))
    sizes: dict[str, tuple[int, int] | None] = dict.fromkeys(sample.members.keys() - {"json"})
    record: StudyRecord | None = None
    for name, member in sample.members.items():
        where = f"{sample.key}.{name}"
        payload = member.read(file)
        if payload is None:
            found.problems.append(f"{where}: checksum differs from the index's")
            continue
        try:
            if name == "json":
                record = StudyRecord.from_json(payload)
            elif name.endswith((".jpg", ".png")):
                sizes[name] = _decoded_size(payload)
            else:
                found.problems.append(f"{where}: neither json, jpg nor png")
        except (OSError, SyntaxError, ValueError) as error:
            found.problems.append(f"{where}: cannot be decoded ({error})")
            continue
        if name.endswith(".jpg"):
            found.images.append((where, hashlib.sha256(payload).digest()))
            content = look_at(payload)
            found.pixels += content.sums
            found.noted += [(where, note.kind, note.detail) for note in content.notes]
    if record is None:
        return
    if (record.key, record.patient_id, record.split) != (sample.key, sample.patient_id, split):
        found.problems.append(f"{sample.key}.json: key, patient or split differ from the index's")
    image_of = {image.member: image for image in record.images}
    image_of |= {mask.member: record.images[mask.image] for mask in record.masks}
    said = {member: (image.width, image.height) for member, image in image_of.items()}
    # What could not be decoded is a problem already.
    there = {member: size or said.get(member) for member, size in sizes.items()}
    differences = _differences("(width, height)", "record", said, "tar", there)
    found.problems += [f"{sample.key}.{each}" for each in differences]


def _decoded_size(payload: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(payload), formats=("JPEG", "PNG")) as image:
        image.load()
        if image.mode != "L":
            raise ValueError(f"pixels of mode {image.mode}, not 8-bit grey")
        return image.size


def _problems_across(inspections: Sequence[_Inspection]) -> Iterator[str]:
    keys = Counter(key for each in inspections for key, _ in each.patient_of_key)
    for key, count in sorted(keys.items()):
        if count > 1:
            yield f"{key}: this key is there {count} times"
    placed = {(p, each.entry.split) for each in inspections for _, p in each.patient_of_key}
    for patient, count in sorted(Counter(patient for patient, _ in placed).items()):
        if count > 1:
            names = ", ".join(sorted(split for other, split in placed if other == patient))
            yield f"patient {patient}: in splits {names}"


def _wrong_sums(manifest: Manifest, inspections: Sequence[_Inspection]) -> Iterator[str]:
    """Counts and statistics of the manifest that sound shards contradict."""
    for each in inspections:
        here, said = len(each.patient_of_key), each.entry.samples
        if here != said:
            yield f"{each.entry.tar_name}: {here} samples, but the manifest says {said}"
    for split, said in manifest.samples_by_split.items():
        there = sum(len(e.patient_of_key) for e in inspections if e.entry.split == split)
        if there != said:
            yield f"manifest.json: {said} samples in {split}, but the shards hold {there}"
    train = (each.pixels for each in inspections if each.entry.split == "train")
    if sum(train, PixelSums()).mean_and_std() != (manifest.pixel_mean, manifest.pixel_std):
        yield "manifest.json: pixel_mean and pixel_std are not those of the training images"


def _repeated_images(inspections: Sequence[_Inspection]) -> list[str]:
    places: defaultdict[bytes, list[tuple[str, Split]]] = defaultdict(list)
    for each in inspections:
        for member, digest in each.images:
            places[digest].append((member, each.entry.split))
    repeated = [found for found in places.values() if len(found) > 1]
    # Those that leak from one split to another first.
    repeated.sort(key=lambda found: (-len({split for _, split in found}), found))
    lines = []
    for found in repeated:
        splits = sorted({split for _, split in found})
        across = f" across {' and '.join(splits)}" if len(splits) > 1 else ""
        names = ", ".join(member for member, _ in found[:3]) + (", ..." if len(found) > 3 else "")
        lines.append(f"the same image {len(found)} times{across}: {names}")
    return _first(lines, SHOWN_DUPLICATES, what=" images that repeat")


def _first(lines: Sequence[str], most: int, *, what: str) -> list[str]:
    hidden = len(lines) - most
    return [*lines[:most], *([f"and {hidden} more{what}"] if hidden > 0 else [])]

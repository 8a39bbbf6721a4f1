"""Patients, images and near-duplicates that two shard folders share.

Images are compared by a difference hash (Krawetz 2013): the signs of the differences between
neighbours in a 17 x 16 px copy, 256 bits, which neither scale nor contrast changes much.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_shards.building.hashed_ids import naming
from data_shards.checking.stored_images import NOT_DECODED, decoded_image
from data_shards.checking.stored_studies import manifest_of, shards_of, studies_of
from data_shards.errors import InputError
from data_shards.files.atomic import write_text_atomically
from data_shards.processes import Progress, Tick, map_in_processes, start_server
from data_shards.records.manifest import ShardEntry
from data_shards.remote.shards import ShardFiles
from data_shards.sources.formats.nih_mapping import nih_patient, read_nih_mapping
from data_shards.sources.formats.tables import read_rows

HASH_SIDE = 16
# Of 256 bits. On 197 public radiographs, copies at another size differed in 8 at most, and pictures
# of others in 22 or more.
NEAR_BITS = 16
# Of hashes that are compared with as many others at once: some tens of MB, however large the sets.
_BLOCK = 1024
_SHOWN = 5
# Ids of both folders, and how many there are by the splits of both.
_Shared: TypeAlias = tuple[tuple[str, ...] | None, dict[str, int] | None]


@dataclass(frozen=True, slots=True)
class StoredImage:
    """Whose an image is, where it lies, and its hash in four words of 64 bits."""

    patient: str
    study: str
    image: str
    split: str
    words: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NearPair:
    """Two images whose hashes differ in so many `bits`; ids and splits are of the first folder
    and of the second.
    """

    images: tuple[str, str]
    patients: tuple[str, str]
    splits: tuple[str, str]
    bits: int


@dataclass(frozen=True, slots=True)
class Overlap:
    """What two folders share, ids of the first as the mapping names them.

    None: ids cannot be compared, for those of the folder `hashed_alone` are hashes.
    """

    folders: tuple[str, str]
    studied_images: tuple[int, int]
    hashed_alone: str | None
    patients: tuple[str, ...] | None
    patients_by_splits: dict[str, int] | None
    images: tuple[str, ...] | None
    images_by_splits: dict[str, int] | None
    near: tuple[NearPair, ...]
    near_by_splits: dict[str, int]

    def told(self) -> str:
        """In lines: counts by the splits of both, and the first near-duplicates."""
        one, other = self.studied_images
        lines = [f"{self.folders[0]}: {one:,} images; {self.folders[1]}: {other:,} images"]
        for what, found, by_splits in (
            ("patients of one id", self.patients, self.patients_by_splits),
            ("images of one id", self.images, self.images_by_splits),
            ("near-duplicates", self.near, self.near_by_splits),
        ):
            if found is None or by_splits is None:
                lines.append(
                    f"{what}: cannot be compared: the ids of {self.hashed_alone} alone are "
                    "hashes: build both with hash_ids of one key, or neither"
                )
                continue
            parts = ", ".join(f"{splits} {count:,}" for splits, count in by_splits.items())
            lines.append(f"{what}: {len(found):,}" + (f" ({parts})" if parts else ""))
        for pair in self.near[:_SHOWN]:
            lines.append(f"  {pair.images[0]} is near {pair.images[1]} ({pair.bits} bits differ)")
        return "\n".join(lines)


def report_overlap(
    one: Path | ShardFiles,
    other: Path | ShardFiles,
    *,
    mapping: Path | None,
    key: Path | None,
    near_bits: int,
    save: Path | None,
    workers: int,
) -> str:
    """What both folders share, in lines; all of it is saved as JSON where `save` says.

    `mapping` and `key`: see `read_mapping`. Raises InputError for an unfinished folder, a damaged
    member and a malformed mapping.
    """
    mapped = read_mapping(mapping, key) if mapping else None
    found = find_overlap(one, other, mapping=mapped, near_bits=near_bits, workers=workers)
    if save is None:
        return found.told()
    write_text_atomically(save, json.dumps(asdict(found), indent=1) + "\n")
    return f"{found.told()}\nwritten to {save}"


def find_overlap(
    one: Path | ShardFiles,
    other: Path | ShardFiles,
    *,
    mapping: Mapped | None = None,
    near_bits: int = NEAR_BITS,
    workers: int = 1,
) -> Overlap:
    """What both folders share; `near_bits` of 256 may differ between near-duplicates."""
    mapped = mapping or Mapped({}, {})
    both = [ShardFiles.of(shards) for shards in (one, other)]
    hashed = [str(files) for files in both if manifest_of(files).hashed_ids]
    hashed_alone = hashed[0] if len(hashed) == 1 else None
    ours, theirs = (_images_of(files, workers) for files in both)
    patients: _Shared = (None, None)
    images: _Shared = (None, None)
    if hashed_alone is None:
        patients = _shared(
            {mapped.patient_of(image): image.split for image in ours},
            {image.patient: image.split for image in theirs},
        )
        images = _shared(
            {mapped.images.get(image.image, image.image): image.split for image in ours},
            {image.image: image.split for image in theirs},
        )
    near = near_pairs(ours, theirs, near_bits)
    return Overlap(
        (str(one), str(other)),
        (len(ours), len(theirs)),
        hashed_alone,
        *patients,
        *images,
        tuple(near),
        _counted([pair.splits for pair in near]),
    )


def _shared(mine: Mapping[str, str], yours: Mapping[str, str]) -> _Shared:
    ids = sorted(mine.keys() & yours.keys())
    return tuple(ids), _counted([(mine[each], yours[each]) for each in ids])


@dataclass(frozen=True, slots=True)
class Mapped:
    """By ids of the first folder those of the second, of images and of patients."""

    images: Mapping[str, str]
    patients: Mapping[str, str]

    def patient_of(self, image: StoredImage) -> str:
        """The patient of an image as the second folder names it."""
        return self.patients.get(image.patient, image.patient)


def read_mapping(path: Path, key: Path | None = None) -> Mapped:
    """A table of columns `a` and `b`, or the mapping of RSNA's images to NIH's in JSON.

    In a table the ids are of images or of patients; of the JSON, which the challenge published,
    NIH's patient is the first part of an image's name. With `key` both folders have hashed ids.
    Raises InputError for a file in neither layout.
    """
    if path.suffix.lower() != ".json":
        images = {row.filled("a"): row.filled("b") for row in read_rows(path, ("a", "b"))}
        patients = images
    else:
        images = read_nih_mapping(path)
        patients = {ours: nih_patient(theirs) for ours, theirs in images.items()}
    name = naming(key)
    return Mapped(
        {name(ours): name(theirs) for ours, theirs in images.items()},
        {name(ours): name(theirs) for ours, theirs in patients.items()},
    )


def difference_hash(image: Image.Image) -> tuple[int, ...]:
    """256 bits in four words, row by row: whether a pixel is darker than its right neighbour."""
    small = image.resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX)
    pixels = np.asarray(small).astype(np.int16)
    bits = np.packbits(pixels[:, 1:] > pixels[:, :-1])
    return tuple(int(word) for word in bits.view(">u8"))


def _images_of(files: ShardFiles, workers: int) -> list[StoredImage]:
    entries = shards_of(files)
    if workers > 1:
        start_server(preload=("data_shards.checking.overlap",))
    total = sum(entry.samples for entry in entries)
    with Progress(f"reading {files}", total=total, unit="samples") as progress:
        parts = map_in_processes(_hashed, files, entries, workers=workers, progress=progress)
    return [image for part in parts for image in part]


def _hashed(files: ShardFiles, entry: ShardEntry, tick: Tick) -> list[StoredImage]:
    images = []
    for study in studies_of(files, entry):
        record = study.record
        for image in record.images:
            try:
                pixels = decoded_image(study.read(image.member), (image.width, image.height))
            except NOT_DECODED as error:
                raise InputError(
                    f"{files.told(entry.tar_name)}: {record.key}.{image.member} cannot be decoded "
                    f"({error}): run `python -m data_shards verify`"
                ) from error
            ids = (record.patient_id, record.study_id, image.id, record.split)
            images.append(StoredImage(*ids, difference_hash(pixels)))
        tick()
    return images


def near_pairs(
    ours: Sequence[StoredImage], theirs: Sequence[StoredImage], bits: int
) -> list[NearPair]:
    """Those whose hashes differ in at most so many bits, the nearest first."""
    if not (ours and theirs):
        return []
    one, other = (_words(each) for each in (ours, theirs))
    found = []
    starts = product(range(0, len(one), _BLOCK), range(0, len(other), _BLOCK))
    for row, column in starts:
        apart = _apart(one[row : row + _BLOCK], other[column : column + _BLOCK])
        for down, across in np.argwhere(apart <= bits):
            a, b = ours[row + int(down)], theirs[column + int(across)]
            pair = NearPair(
                (a.image, b.image),
                (a.patient, b.patient),
                (a.split, b.split),
                int(apart[down, across]),
            )
            found.append(pair)
    return sorted(found, key=lambda pair: (pair.bits, pair.images))


def _apart(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Of each of one and each of the other, the bits in which their hashes differ."""
    apart = np.zeros((len(one), len(other)), dtype=np.uint16)
    for word in range(one.shape[1]):
        apart += np.bitwise_count(one[:, None, word] ^ other[None, :, word])
    return apart


def _words(images: Sequence[StoredImage]) -> NDArray[np.uint64]:
    return np.array([image.words for image in images], dtype=np.uint64)


def _counted(pairs: Sequence[tuple[str, str]]) -> dict[str, int]:
    counts = Counter(f"{one}/{other}" for one, other in pairs)
    return dict(sorted(counts.items(), key=lambda each: (-each[1], each[0])))

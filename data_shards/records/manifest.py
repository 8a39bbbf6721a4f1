"""The two descriptions beside the tars: an index per shard and one manifest per folder.

<folder>/train-000000.tar             samples, in WebDataset's naming
<folder>/train-000000.index.json      where each member lies, with its checksum
<folder>/manifest.json                written last: a folder without it is unfinished

Types and ranges are checked when a document is read. What several documents say must agree: each
has `contradictions`, which `verify` lists and the reader refuses.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import Annotated, Literal

from pydantic import Field, model_validator

from data_shards.errors import InputError
from data_shards.files.regular import read_document
from data_shards.records.documents import Document, parse_document, read_without_doubles
from data_shards.records.fields import Count, FileName, Sha256, Side
from data_shards.records.indexed_samples import IndexedSample, IndexedSamples
from data_shards.records.study import SPLITS, Split, View

INDEX_VERSION: Literal[3] = 3
MANIFEST_NAME = "manifest.json"
_BY_ROWS = re.compile(rb'"schema_version":\s*[12]\b')
_AGAIN = "copy it again, or delete it with its tar and build the shards again"


class DroppedSample(Document):
    """A study (or image) left out, and why."""

    key: str
    reason: str


class NotedImage(Document):
    """A stored image of which there is something to say: `key` is its study's key and member."""

    key: str
    kind: str
    detail: str


class PixelSums(Document):
    """Integer sums over 8-bit pixels: exact, so that adding shards in any order agrees."""

    count: Count = 0
    total: Count = 0
    total_of_squares: Count = 0

    def __add__(self, other: PixelSums) -> PixelSums:
        return PixelSums(
            count=self.count + other.count,
            total=self.total + other.total,
            total_of_squares=self.total_of_squares + other.total_of_squares,
        )

    @model_validator(mode="after")
    def _are_of_pixels(self) -> PixelSums:
        if not self.total**2 <= self.count * self.total_of_squares <= 255 * self.total * self.count:
            raise ValueError("these are no sums over pixels from 0 to 255")
        return self

    def mean_and_std(self) -> tuple[float, float]:
        """Mean and population standard deviation of the pixels, as fractions of 255."""
        assert self.count > 0
        # Integers to the last step: the textbook formula loses nothing here.
        variance = self.count * self.total_of_squares - self.total**2
        return self.total / self.count / 255, math.sqrt(variance) / self.count / 255


class _Index(Document):
    """What indices of all schemas hold; which schema it is comes first."""

    schema_version: int
    plan_sha256: str
    tar_name: FileName
    tar_bytes: Count
    tar_sha256: Sha256
    split: Split
    dropped: tuple[DroppedSample, ...]
    pixels: PixelSums
    noted: tuple[NotedImage, ...] = ()


class ShardIndex(_Index):
    """`<shard>.index.json`: written after its tar is complete, so it marks the shard done."""

    schema_version: Literal[1, 2, 3] = INDEX_VERSION
    samples: IndexedSamples

    def contradictions(self, entry: ShardEntry) -> Iterator[str]:
        """What this index disagrees on with itself and with its entry in the manifest."""
        for what, here, there in (
            ("tar_name", self.tar_name, entry.tar_name),
            ("split", self.split, entry.split),
            ("samples", len(self.samples), entry.samples),
            ("tar_bytes", self.tar_bytes, entry.bytes),
            ("tar_sha256", self.tar_sha256, entry.sha256),
        ):
            if here != there:
                yield f"{what} {here!r} in the index, {there!r} in the manifest"
        yield from self.samples.contradictions(self.tar_bytes, of_sentences=self.schema_version > 1)


class _IndexByRows(_Index):
    """One of schema 1 or 2, which hold the samples one after another."""

    schema_version: Literal[1, 2]
    samples: tuple[IndexedSample, ...]

    def by_columns(self) -> ShardIndex:
        """The same as it would be read from one of today."""
        fields = dict(self) | {"samples": IndexedSamples.of(self.samples)}
        return ShardIndex.model_construct(**fields)


class ShardEntry(Document):
    """One shard as the manifest lists it."""

    tar_name: FileName
    index_name: FileName
    split: Split
    samples: Count
    bytes: Count
    sha256: Sha256
    index_sha256: Sha256


class Manifest(Document):
    """`manifest.json`. `pixel_mean` and `pixel_std` are of the training split, in [0, 1].

    `warnings` are lines for users, with counts. `hashed_ids`: ids of studies are keyed hashes.
    """

    schema_version: Literal[1] = 1
    source: str
    licence: str
    seed: int
    longest_side_px: Side
    pixel_mean: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    pixel_std: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    samples_by_split: dict[Split, Count]
    patients_by_split: dict[Split, Count]
    images_by_split_and_view: dict[Split, dict[str, Count]]
    shards: tuple[ShardEntry, ...]
    dropped: tuple[DroppedSample, ...]
    dropped_by_reason: dict[str, Count]
    warnings: tuple[str, ...] = ()
    hashed_ids: bool = False

    def contradictions(self) -> Iterator[str]:
        """What the manifest's own numbers and names disagree on."""
        for name, times in Counter(entry.tar_name for entry in self.shards).items():
            if times > 1:
                yield f"{name} is listed {times} times"
        for entry in self.shards:
            if not entry.tar_name.startswith(f"{entry.split}-"):
                yield f"{entry.tar_name} is listed as a shard of {entry.split}"
            if entry.index_name != index_name(entry.tar_name):
                yield f"{entry.tar_name}: its index cannot be {entry.index_name}"
        for split in SPLITS:
            said = self.samples_by_split.get(split, 0)
            listed = sum(entry.samples for entry in self.shards if entry.split == split)
            if said != listed:
                yield f"{said} samples in {split}, but its shards hold {listed}"
        if Counter(each.reason for each in self.dropped) != Counter(self.dropped_by_reason):
            yield "dropped_by_reason does not count what is listed in dropped"

    def contradictions_of_split(self, split: Split, indexes: Iterable[ShardIndex]) -> Iterator[str]:
        """What the manifest says of `split`, and all the `indexes` of its shards do not.

        Each index is looked at once, when it comes: none needs to stay.
        """
        keys: list[str] = []
        patients: set[str] = set()
        views: Counter[tuple[View | None, ...]] = Counter()
        pixels = PixelSums()
        dropped: Counter[tuple[str, str]] = Counter()
        for index in indexes:
            keys += index.samples.keys
            patients.update(index.samples.patient_ids)
            views.update(index.samples.views)
            pixels += index.pixels
            dropped.update((each.key, each.reason) for each in index.dropped)
        if len(set(keys)) < len(keys):
            for key, times in Counter(keys).items():
                if times > 1:
                    yield f"{key}: this key is there {times} times"
        if (said := self.patients_by_split.get(split, 0)) != len(patients):
            yield f"{said} patients in {split}, but its indices name {len(patients)}"
        said_views = self.images_by_split_and_view.get(split, {})
        if said_views != (there := images_by_view(views)):
            yield f"images by view {said_views} in {split}, but its indices name {there}"
        statistics = pixels.mean_and_std() if pixels.count else None
        if split == "train" and keys and statistics != (self.pixel_mean, self.pixel_std):
            yield "pixel_mean and pixel_std are not those of the training images"
        if split == "train" and self.pixel_std == 0:
            yield "pixel_std is 0: every training image is of one value, so there is none to learn"
        listed = Counter((each.key, each.reason) for each in self.dropped)
        for key, reason in dropped - listed:
            yield f"does not list that {key} was dropped ({reason})"


def images_by_view(studies: Mapping[tuple[View | None, ...], int]) -> dict[str, int]:
    """How many images there are of each view, "unknown" among them.

    By how many studies have images of which views.
    """
    images: Counter[str] = Counter()
    for views, times in studies.items():
        for view in views:
            images[view or "unknown"] += times
    return dict(sorted(images.items()))


def index_name(tar_name: str) -> str:
    """The file name of the index beside a tar."""
    return tar_name.removesuffix(".tar") + ".index.json"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file as it lies there, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a shard folder.

    Raises InputError for none (an unfinished build), another schema version and a malformed one.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise InputError(f"{path}: no manifest{_why_absent(folder)}")
    remedy = "copy it again, or give the `build` that wrote it once more"
    return parse_document(Manifest, read_without_doubles(path, remedy), path, remedy)


def read_shard_index(path: Path, *, sha256: str | None = None) -> ShardIndex:
    """The index beside one tar.

    Raises InputError when it is missing, foreign, malformed or not of `sha256`, if that is given.
    """
    try:
        content = read_document(path)
    except (FileNotFoundError, NotADirectoryError):
        raise index_is_missing(path) from None
    return parse_shard_index(content, path, sha256=sha256)


def parse_shard_index(content: bytes, path: Path, *, sha256: str | None = None) -> ShardIndex:
    """The same out of the bytes of `path`."""
    if sha256 not in (None, hashlib.sha256(content).hexdigest()):
        raise InputError(f"{path}: changed since the manifest was written: {_AGAIN}")
    if _BY_ROWS.search(content, 0, 100):
        return parse_document(_IndexByRows, content, path, _AGAIN).by_columns()
    return parse_document(ShardIndex, content, path, _AGAIN)


def index_is_missing(path: Path) -> InputError:
    """What is said where none is at `path`."""
    return InputError(f"{path}: the index of a shard is missing: {_AGAIN}")


def _why_absent(folder: Path) -> str:
    if not folder.is_dir():
        what = f"{folder} is a file" if folder.exists() else "there is no such folder"
        return f": {what}: name the folder that `python -m data_shards build PROFILE.yaml` wrote"
    tars = sorted(folder.glob("*.tar"))
    if tars and not any(folder.glob("*.index.json")):
        return (
            f", and {tars[0].name} has no index: these tars were not written by `build`: make "
            f"shards of them with configs/shards/webdataset.yaml source.folder={quote(str(folder))}"
        )
    again = "run `python -m data_shards build PROFILE.yaml` (it goes on where it stopped)"
    return f", so this is not a finished shard folder: {again}"

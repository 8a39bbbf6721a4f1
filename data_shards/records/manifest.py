"""The two descriptions beside the tars: an index per shard and one manifest per folder.

<folder>/train-000000.tar             samples, in WebDataset's naming
<folder>/train-000000.index.json      where each member lies, with its checksum
<folder>/manifest.json                written last: a folder without it is unfinished
"""

from __future__ import annotations

import hashlib
import math
import zlib
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from data_shards.errors import InputError
from data_shards.records.policies import TextPolicy, selected_words
from data_shards.records.study import Split, View

INDEX_VERSION: Literal[2] = 2
MANIFEST_NAME = "manifest.json"


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Member(_Document):
    """One file inside a tar: payload offset and size in bytes, CRC-32 of the payload."""

    offset: int
    size: int
    crc32: int

    def read(self, tar: BinaryIO) -> bytes | None:
        """The payload, or None when its checksum is another."""
        tar.seek(self.offset)
        payload = tar.read(self.size)
        return payload if zlib.crc32(payload) == self.crc32 else None


class IndexedSample(_Document):
    """One sample of a shard.

    `words` are those of each sentence, by section. Up to schema 1 they were those that a text
    policy keeps, by the policies of that release.
    """

    key: str
    patient_id: str
    views: tuple[View | None, ...]
    members: dict[str, Member]
    words: dict[str, tuple[int, ...]] | dict[str, int]

    def words_under(self, policy: TextPolicy) -> int | None:
        """The words that `policy` keeps; None where only the sample's record can tell."""
        by_section = {name: n for name, n in self.words.items() if isinstance(n, tuple)}
        if by_section:
            return selected_words(by_section, policy)
        known = self.words.get(policy)
        return known if isinstance(known, int) else None


class DroppedSample(_Document):
    """A study (or image) left out, and why."""

    key: str
    reason: str


class PixelSums(_Document):
    """Integer sums over 8-bit pixels: exact, so that adding shards in any order agrees."""

    count: int = 0
    total: int = 0
    total_of_squares: int = 0

    def __add__(self, other: PixelSums) -> PixelSums:
        return PixelSums(
            count=self.count + other.count,
            total=self.total + other.total,
            total_of_squares=self.total_of_squares + other.total_of_squares,
        )

    def mean_and_std(self) -> tuple[float, float]:
        """Mean and population standard deviation of the pixels, as fractions of 255."""
        assert self.count > 0
        # Integers to the last step: the textbook formula loses nothing here.
        variance = self.count * self.total_of_squares - self.total**2
        return self.total / self.count / 255, math.sqrt(variance) / self.count / 255


class ShardIndex(_Document):
    """`<shard>.index.json`: written after its tar is complete, so it marks the shard done."""

    schema_version: Literal[1, 2] = INDEX_VERSION
    plan_sha256: str
    tar_name: str
    tar_bytes: int
    tar_sha256: str
    split: Split
    samples: tuple[IndexedSample, ...]
    dropped: tuple[DroppedSample, ...]
    pixels: PixelSums


class ShardEntry(_Document):
    """One shard as the manifest lists it."""

    tar_name: str
    index_name: str
    split: Split
    samples: int
    bytes: int
    sha256: str
    index_sha256: str


class Manifest(_Document):
    """`manifest.json`. `pixel_mean` and `pixel_std` are of the training split, in [0, 1].

    `warnings` are lines for whoever uses the shards, with counts.
    """

    schema_version: Literal[1] = 1
    source: str
    licence: str
    seed: int
    longest_side_px: int
    pixel_mean: float
    pixel_std: float
    samples_by_split: dict[Split, int]
    patients_by_split: dict[Split, int]
    images_by_split_and_view: dict[Split, dict[str, int]]
    shards: tuple[ShardEntry, ...]
    dropped: tuple[DroppedSample, ...]
    dropped_by_reason: dict[str, int]
    warnings: tuple[str, ...] = ()


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
    absent = (
        "no manifest, so this is not a finished shard folder: run `python -m data_shards build "
        "PROFILE.yaml` (it goes on where it stopped)"
    )
    return _read(Manifest, folder / MANIFEST_NAME, absent)


def read_shard_index(path: Path) -> ShardIndex:
    """The index beside one tar. Raises InputError when missing, foreign or malformed."""
    return _read(ShardIndex, path, "the index of a shard is missing: build the shards again")


DocumentT = TypeVar("DocumentT", bound=_Document)


def _read(kind: type[DocumentT], path: Path, absent: str) -> DocumentT:
    if not path.is_file():
        raise InputError(f"{path}: {absent}")
    try:
        return kind.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        wrong = f"{field}: {first['msg']}" if field else first["msg"]
        if field == "schema_version":
            wrong = f"schema version {first['input']!r}, but this release reads "
            wrong += first["ctx"]["expected"]
        raise InputError(f"{path}: {wrong}: build the shards again") from error

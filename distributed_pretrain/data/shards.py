"""Random access to the samples and labels of one split; those that cannot be read are counted."""

from __future__ import annotations

import contextlib
import difflib
import math
import mmap
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import sha256
from itertools import chain
from pathlib import Path, PurePosixPath

import numpy as np

from data_shards.errors import InputError
from data_shards.files.json_lines import JsonLines, rank_writer
from data_shards.records.manifest import (
    IndexedSample,
    Member,
    ShardEntry,
    ShardIndex,
    read_manifest,
    read_shard_index,
)
from data_shards.records.policies import POLICIES, TextPolicy, select_sentences, word_count
from data_shards.records.study import FRONTAL_VIEWS, Split, StudyRecord

# Pickles and the like would run code: nothing else is ever read.
READABLE_SUFFIXES = frozenset({".jpg", ".png", ".json"})

# Each mapping keeps a file descriptor, of which a process often has no more than 1,024.
_MOST_OPEN_TARS = 128

# Keeps replacements apart from the other random streams of (seed, epoch, sample).
_REPLACEMENT_STREAM = 0xBAD


class BadSampleError(ValueError):
    """One sample cannot be read: `key`, its tar, and the reason in one line."""

    def __init__(self, key: str, shard: str, reason: str) -> None:
        super().__init__(f"{shard}: {key}: {reason}")
        self.key = key
        self.shard = shard
        self.reason = reason


@dataclass
class Quarantine:
    """The unreadable among the `samples` of a split, also as `lines` of a run where it has them.

    A line has key, shard, split, reason, and the `samples_consumed` after the batch that met the
    sample first. A rank writes each of its samples once, counts those of the other ranks too, and
    a resumed run goes on with the lines it finds.
    """

    split: Split
    samples: int
    max_bad_fraction: float
    lines: JsonLines | None = None
    rank: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._met = self._written()

    def add(self, error: BadSampleError, *, samples_consumed: int) -> None:
        """Note one bad sample. Raises InputError once too large a share of the split is bad."""
        with self._lock:
            if error.key not in self._met:
                written = self._written()
                self._met |= {error.key, *written}
                if self.lines is not None and error.key not in written:
                    line = {
                        "key": error.key,
                        "shard": error.shard,
                        "split": self.split,
                        "reason": error.reason,
                        "samples_consumed": samples_consumed,
                    }
                    self.lines.append(line, writer=rank_writer(self.rank))
            bad = len(self._met)
        if bad > self.max_bad_fraction * self.samples:
            where = f" (listed in {self.lines.path})" if self.lines is not None else ""
            raise InputError(
                f"{bad} of {self.samples} samples of split {self.split!r} cannot be read{where}, "
                f"more than max_bad_fraction={self.max_bad_fraction} allows; the last: {error}: "
                "run `python -m data_shards verify` and copy or build the damaged shards again"
            )

    def _written(self) -> set[str]:
        """The keys that any rank has written down."""
        lines = self.lines.read() if self.lines is not None else []
        return {line["key"] for line in lines if line["split"] == self.split}


def replacement_position(of: tuple[int, int, int, int], *, samples: int) -> int:
    """Which sample stands in for an unreadable one, a function of (seed, epoch, position, attempt).

    So it is the same on every rank and after a resume.
    """
    state = np.random.SeedSequence((*of, _REPLACEMENT_STREAM))
    return int(np.random.Generator(np.random.Philox(state)).integers(samples))


class ShardSplit:
    """The samples of one split with a frontal image and enough words for a text policy.

    A position counts the kept samples in file order, from 0. Reading is thread-safe. Tars are read
    at the start only where they were built before the indexes could tell of this policy. Of
    `patient_fraction` of the patients (rounded, at least one) it holds all studies: which ones is a
    function of their ids alone, and a smaller fraction's are among a larger one's.

    Raises InputError for a folder without manifest, another schema, an index or tar that is missing
    or not as it was written, and a split in which no sample is usable.
    """

    def __init__(
        self, folder: Path, split: Split, policy: TextPolicy, *, patient_fraction: float = 1.0
    ) -> None:
        self.folder = folder
        self.split: Split = split
        self.policy: TextPolicy = policy
        self.manifest = read_manifest(folder)
        # One that drops out is closed with its last reader.
        self._tar = lru_cache(_MOST_OPEN_TARS)(partial(_mapped, folder))
        entries = [entry for entry in self.manifest.shards if entry.split == split]
        indexes = [_checked_index(folder, entry) for entry in entries]
        chosen = _chosen_patients(indexes, patient_fraction)
        kept = [
            [
                (index.tar_name, sample)
                for sample in index.samples
                if sample.patient_id in chosen and self._is_usable(index.tar_name, sample)
            ]
            for index in indexes
        ]
        self.shard_sizes = tuple(map(len, kept))
        self._samples = list(chain.from_iterable(kept))
        if not self._samples:
            stored = sum(entry.samples for entry in entries)
            raise InputError(
                f"{folder}: split {split!r} has no usable sample ({stored} stored; usable are those"
                f" with a frontal image and {POLICIES[policy].minimum_words} words under text "
                f"policy {policy!r}): choose another split or policy, or build shards with more "
                "studies"
            )

    def __len__(self) -> int:
        return len(self._samples)

    def key(self, position: int) -> str:
        """The key of a sample, without reading it."""
        return self._samples[position][1].key

    def read(self, position: int) -> StudyRecord:
        """What the shard knows of a study. Raises BadSampleError when that is damaged."""
        payload = self.read_member(position, "json")
        try:
            return StudyRecord.from_json(payload)
        except ValueError as error:
            raise self.bad_sample(position, f"the record is malformed ({error!r})") from error

    def read_member(self, position: int, name: str) -> bytes:
        """The bytes of one member ("json", "image0.jpg" ...), checked against its CRC-32.

        Raises BadSampleError when the member is absent, damaged or of a kind never read.
        """
        tar, sample = self._samples[position]
        if PurePosixPath(f"x.{name}").suffix not in READABLE_SUFFIXES:
            raise self.bad_sample(position, f"member {name!r} is not a jpg, png or json")
        member = sample.members.get(name)
        if member is None:
            raise self.bad_sample(position, f"member {name!r} is not in the index")
        payload = self._read_checked(tar, member)
        if payload is None:
            raise self.bad_sample(position, f"member {name!r} differs from its checksum")
        return payload

    def bad_sample(self, position: int, reason: str) -> BadSampleError:
        """The error that says why the sample at `position` cannot be used."""
        tar, sample = self._samples[position]
        return BadSampleError(sample.key, tar, reason)

    def _read_checked(self, tar: str, member: Member) -> bytes | None:
        payload = self._tar(tar)[member.offset : member.offset + member.size]
        return payload if zlib.crc32(payload) == member.crc32 else None

    def _is_usable(self, tar: str, sample: IndexedSample) -> bool:
        if not any(view in FRONTAL_VIEWS for view in sample.views):
            return False
        words = sample.words_under(self.policy)
        if words is None:
            payload = self._read_checked(tar, sample.members["json"])
            if payload is None:
                return True  # for whoever reads it to name
            report = StudyRecord.from_json(payload).report
            words = word_count(select_sentences(report, self.policy))
        return words >= POLICIES[self.policy].minimum_words


def _mapped(folder: Path, tar: str) -> mmap.mmap:
    with (folder / tar).open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _chosen_patients(indexes: Sequence[ShardIndex], fraction: float) -> frozenset[str]:
    patients = {sample.patient_id for index in indexes for sample in index.samples}
    # By a hash, not the first ones: ids may follow the date or the hospital.
    shuffled = sorted(patients, key=lambda patient: sha256(patient.encode()).digest())
    return frozenset(shuffled[: max(1, round(fraction * len(shuffled)))])


def _checked_index(folder: Path, entry: ShardEntry) -> ShardIndex:
    path = folder / entry.index_name
    index = read_shard_index(path)
    if sha256(path.read_bytes()).hexdigest() != entry.index_sha256:
        raise InputError(f"{path}: changed since the manifest was written: build the shards again")
    tar = folder / entry.tar_name
    if not tar.is_file():
        raise InputError(f"{tar}: the shard is missing: copy it again or build the shards again")
    if tar.stat().st_size != index.tar_bytes:
        raise InputError(
            f"{tar}: {tar.stat().st_size} bytes, but {index.tar_bytes} were written (cut short?): "
            "copy it again or build the shards again"
        )
    return index


def label_values(record: StudyRecord, names: Sequence[str]) -> list[float]:
    """The study's value of each label as it is stored; NaN where it has none."""
    values = (record.labels.get(name) for name in names)
    return [math.nan if value is None else float(value) for value in values]


def check_labels(split: ShardSplit, names: Sequence[str]) -> None:
    """Raises InputError, with the nearest names there are, unless the split knows all `names`.

    Studies are read until every name has been met: one or few, unless a name is wrong.
    """
    known = set[str]()
    for position in range(len(split)):
        if known.issuperset(names):
            break
        with contextlib.suppress(BadSampleError):  # the loader will meet it again, and count it
            known |= split.read(position).labels.keys()
    name = next((name for name in names if name not in known), None)
    if name is None:
        return
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    listed = ", ".join(sorted(known)) or "none (build shards from a source with labels)"
    remedy = f"did you mean {near[0]!r}?" if near else f"known labels: {listed}"
    raise InputError(
        f"data.labels: no study of split {split.split!r} in {split.folder} has a label {name!r}: "
        f"{remedy}"
    )

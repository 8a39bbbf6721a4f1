"""Random access to the samples and labels of one split."""

from __future__ import annotations

import contextlib
import difflib
import gc
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from data_shards.errors import InputError
from data_shards.records.documents import refuse_contradictions
from data_shards.records.manifest import (
    MANIFEST_NAME,
    IndexedSample,
    ShardEntry,
    ShardIndex,
    read_manifest,
    read_shard_index,
)
from data_shards.records.policies import POLICIES, TextPolicy, select_sentences, word_count
from data_shards.records.study import FRONTAL_VIEWS, Split, StudyRecord
from data_shards.remote.shards import ShardFiles
from distributed_pretrain.data.quarantine import BadSampleError
from distributed_pretrain.data.tars import DamagedMemberError, Tars

# Pickles and the like would run code: nothing else is ever read.
READABLE_KINDS = frozenset({"jpg", "png", "json"})

# From so many on a collection of garbage takes longer than a moment.
_MANY_SAMPLES = 10_000


class ShardSplit:
    """The samples of one split with a frontal image and enough words for a text policy.

    A position counts the kept samples in file order, from 0; the others are in `left_out`. Reading
    is thread-safe. Tars are read at the start only where they were built before the indexes could
    tell of this policy. Of `patient_fraction` of the patients (rounded, at least one) it holds all
    studies: which ones is a function of their ids alone, and a smaller fraction's are among a
    larger one's. `only` keeps the samples of these keys.

    `shards` is their folder, or the files of a store.

    Raises InputError for a folder without manifest, another schema, an index or tar that is missing
    or not as it was written, documents that contradict each other, and a split in which no sample
    is usable.
    """

    def __init__(
        self,
        shards: Path | ShardFiles,
        split: Split,
        policy: TextPolicy,
        *,
        patient_fraction: float = 1.0,
        only: Collection[str] | None = None,
    ) -> None:
        self.files = files = shards if isinstance(shards, ShardFiles) else ShardFiles(shards)
        self.split: Split = split
        self.policy: TextPolicy = policy
        self._patient_fraction = patient_fraction
        self._only = None if only is None else frozenset(only)
        folder = files.manifest_folder()
        self.manifest = read_manifest(folder)
        self._tars = Tars(files)
        refuse_contradictions(self.manifest.contradictions(), folder / MANIFEST_NAME)
        entries = [entry for entry in self.manifest.shards if entry.split == split]
        # Studies of the chosen patients that are not kept, by what they lack.
        self.left_out = Counter[str]()
        with _made_to_stay(sum(entry.samples for entry in entries)):
            indexes = [_checked_index(files, entry) for entry in entries]
            counts = self.manifest.contradictions_of_split(split, indexes)
            refuse_contradictions(counts, folder / MANIFEST_NAME)
            chosen = _chosen_patients(indexes, patient_fraction)
            kept = [
                [
                    (index.tar_name, sample)
                    for sample in index.samples
                    if sample.patient_id in chosen
                    and (self._only is None or sample.key in self._only)
                    and self._is_usable(index.tar_name, sample)
                ]
                for index in indexes
            ]
            self.shard_sizes = tuple(map(len, kept))
            self._samples = list(chain.from_iterable(kept))
        if not self._samples:
            stored = sum(entry.samples for entry in entries)
            raise InputError(
                f"{files}: split {split!r} has no usable sample ({stored} stored; usable are those"
                f" with a frontal image and {POLICIES[policy].minimum_words} words under text "
                f"policy {policy!r}): choose another split or policy, or build shards with more "
                "studies"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process opens them itself: its files are its own.
        again = partial(type(self), patient_fraction=self._patient_fraction, only=self._only)
        return again, (self.files, self.split, self.policy)

    def __len__(self) -> int:
        return len(self._samples)

    def told_left_out(self) -> str:
        """What of the split is not kept, and why, in a line; empty where all is."""
        reasons = ", ".join(f"{count:,} {lacks}" for lacks, count in self.left_out.items())
        return f"{self.split}: left out are {reasons}; {len(self):,} are kept" if reasons else ""

    @property
    def patients(self) -> frozenset[str]:
        """Whose the samples are."""
        return frozenset(sample.patient_id for _, sample in self._samples)

    def key(self, position: int) -> str:
        """The key of a sample, without reading it."""
        return self._samples[position][1].key

    def read(self, position: int) -> StudyRecord:
        """What the shard knows of a study.

        Raises BadSampleError when that is damaged, or not what the index says.
        """
        payload = self.read_member(position, "json")
        try:
            record = StudyRecord.from_json(payload)
        except ValueError as error:
            raise self.bad_sample(position, f"the record is malformed ({error})") from error
        for wrong in self._samples[position][1].contradictions(record, self.split):
            raise self.bad_sample(position, wrong)
        return record

    def read_member(self, position: int, name: str) -> bytes:
        """The bytes of one member ("json", "image0.jpg" ...), checked against its CRC-32.

        Raises BadSampleError when the member is absent, damaged or of a kind never read.
        """
        tar, sample = self._samples[position]
        if name.rpartition(".")[2] not in READABLE_KINDS:
            raise self.bad_sample(position, f"member {name!r} is not a jpg, png or json")
        try:
            return self._tars.read(tar, sample, name)
        except DamagedMemberError as error:
            raise self.bad_sample(position, f"member {name!r} {error}") from error

    def bad_sample(self, position: int, reason: str) -> BadSampleError:
        """The error that says why the sample at `position` cannot be used."""
        tar, sample = self._samples[position]
        return BadSampleError(sample.key, tar, reason)

    def _is_usable(self, tar: str, sample: IndexedSample) -> bool:
        lacks = self._lacks(tar, sample)
        if lacks is not None:
            self.left_out[lacks] += 1
        return lacks is None

    def _lacks(self, tar: str, sample: IndexedSample) -> str | None:
        if not any(view in FRONTAL_VIEWS for view in sample.views):
            return "without a frontal image"
        words = sample.words_under(self.policy)
        if words is None:
            try:
                report = StudyRecord.from_json(self._tars.read(tar, sample, "json")).report
            except ValueError:
                return None  # for whoever reads it to name
            words = word_count(select_sentences(report, self.policy))
        fewest = POLICIES[self.policy].minimum_words
        too_few = f"with fewer than {fewest} words under text policy {self.policy!r}"
        return too_few if words < fewest else None


@contextlib.contextmanager
def _made_to_stay(samples: int) -> Iterator[None]:
    """Without the search for cycles where many objects are made that have none and will stay.

    It would look at each of millions of them again and again, here and in the loop. Reference
    counts still free what is dropped.
    """
    if samples < _MANY_SAMPLES or not gc.isenabled():
        yield
        return
    gc.collect()  # what is a cycle now would stay with the rest
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def _chosen_patients(indexes: Sequence[ShardIndex], fraction: float) -> frozenset[str]:
    patients = {sample.patient_id for index in indexes for sample in index.samples}
    if fraction == 1:
        return frozenset(patients)
    # By a hash, not the first ones: ids may follow the date or the hospital.
    shuffled = sorted(patients, key=lambda patient: sha256(patient.encode()).digest())
    return frozenset(shuffled[: max(1, round(fraction * len(shuffled)))])


def _checked_index(files: ShardFiles, entry: ShardEntry) -> ShardIndex:
    path = files.path(entry.index_name)
    index = read_shard_index(path, sha256=entry.index_sha256)
    refuse_contradictions(index.contradictions(entry), path)
    if files.is_remote:
        return index  # a tar is held against its size and hash when it arrives
    tar = files.path(entry.tar_name)
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
    """Raises InputError, with the nearest names there are, unless the split knows all `names`."""
    check_known(split, names, "labels", lambda record: record.labels)


def check_known(
    split: ShardSplit,
    names: Sequence[str],
    what: Literal["labels", "masks", "boxes"],
    known_of: Callable[[StudyRecord], Collection[str]],
    *,
    any_is_enough: bool = False,
) -> None:
    """Raises InputError, with the nearest names there are, unless the split knows all `names`.

    Or one of them, where `any_is_enough`. `known_of` tells which a study knows, and `what` of
    `data` they are. Studies are read until every name has been met: one or few, unless one is
    wrong.
    """
    known = set[str]()
    for position in range(len(split)):
        if known.issuperset(names) or (any_is_enough and known.intersection(names)):
            return
        with contextlib.suppress(BadSampleError):  # the loader will meet it again, and count it
            known |= set(known_of(split.read(position)))
    name = next((name for name in names if name not in known), None)
    if name is None or (any_is_enough and known.intersection(names)):
        return
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    listed = ", ".join(sorted(known)) or f"none (build shards from a source with {what})"
    remedy = f"did you mean {near[0]!r}?" if near else f"known {what}: {listed}"
    raise InputError(
        f"data.{what}: no study of split {split.split!r} in {split.files} has among its {what} "
        f"{name!r}: {remedy}"
    )

"""Random access to the samples and labels of one split."""

from __future__ import annotations

import contextlib
import difflib
import math
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache, partial
from hashlib import sha256
from itertools import accumulate, chain, repeat
from pathlib import Path
from typing import Any, Literal, NamedTuple

from data_shards.collector import collection_paused, set_present_objects_aside
from data_shards.errors import InputError
from data_shards.records.documents import refuse_contradictions
from data_shards.records.indexed_samples import IndexedSample
from data_shards.records.manifest import MANIFEST_NAME, ShardEntry, ShardIndex, read_manifest
from data_shards.records.policies import POLICIES, TextPolicy, select_sentences, word_count
from data_shards.records.study import FRONTAL_VIEWS, Split, StudyRecord, View
from data_shards.remote.shards import ShardFiles
from distributed_pretrain.data.indexes import Indexes
from distributed_pretrain.data.quarantine import BadSampleError
from distributed_pretrain.data.readers import stored_members
from distributed_pretrain.data.stored_members import DamagedMemberError

# Pickles and the like would run code: nothing else is ever read.
READABLE_KINDS = frozenset({"jpg", "png", "json"})

# What is said to be lacking where the index is too old to tell: the record does.
_UNKNOWN = "words that were counted"


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
        # All work with data begins here, in each process that loads some.
        set_present_objects_aside()
        self.files = files = ShardFiles.of(shards)
        self.split: Split = split
        self.policy: TextPolicy = policy
        self._patient_fraction = patient_fraction
        self._only = None if only is None else frozenset(only)
        folder = files.manifest_folder()
        self.manifest = read_manifest(folder)
        refuse_contradictions(self.manifest.contradictions(), folder / MANIFEST_NAME)
        self._indexes = Indexes(
            files, [each for each in self.manifest.shards if each.split == split]
        )
        self._stored = stored_members(files, self._indexes.entries)
        seen: list[_Shard] = []
        with collection_paused():
            counts = self.manifest.contradictions_of_split(split, self._looked_at(seen))
            refuse_contradictions(counts, folder / MANIFEST_NAME)
        # Of each kept sample its key and its place in the shard; the rest is read again when it is
        # asked for. Of a large set it would take a GB in each process.
        self._keys: list[str] = []
        self._places = array("L")
        patients: set[str] = set()
        # Studies of the chosen patients that are not kept, by what they lack.
        self.left_out = Counter[str]()
        sizes: list[int] = []
        chosen = _chosen_patients(seen, patient_fraction)
        # Whole columns, here and below: a large set has half a million samples.
        for number, shard in enumerate(seen):
            kept: Sequence[int] = range(len(shard.keys))
            if chosen is not None:
                kept = [place for place in kept if shard.patients[place] in chosen]
            if self._only is not None:
                kept = [place for place in kept if shard.keys[place] in self._only]
            if any(map(shard.lacks.__getitem__, kept)):
                lacks = [
                    self._lacks_by_record(number, place) if lack == _UNKNOWN else lack
                    for place, lack in zip(kept, map(shard.lacks.__getitem__, kept), strict=True)
                ]
                self.left_out.update(filter(None, lacks))
                kept = [place for place, lack in zip(kept, lacks, strict=True) if lack is None]
            self._keys += map(shard.keys.__getitem__, kept)
            self._places.extend(kept)
            patients.update(map(shard.patients.__getitem__, kept))
            sizes.append(len(kept))
        self.shard_sizes = tuple(sizes)
        self._ends = list(accumulate(sizes))
        # Whose the samples are.
        self.patients = frozenset(patients)
        if not self._keys:
            stored = sum(entry.samples for entry in self._indexes.entries)
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
        return len(self._keys)

    def hold_shards(self, count: int) -> None:
        """Keep what is known of so many shards at hand, among which samples are read at random."""
        self._indexes.hold(count)

    @property
    def entries(self) -> tuple[ShardEntry, ...]:
        """The split's shards by number, as the manifest has them."""
        return self._indexes.entries

    def told_left_out(self) -> str:
        """What of the split is not kept, and why, in a line; empty where all is."""
        reasons = ", ".join(f"{count:,} {lacks}" for lacks, count in self.left_out.items())
        return f"{self.split}: left out are {reasons}; {len(self):,} are kept" if reasons else ""

    def key(self, position: int) -> str:
        """The key of a sample, without reading it."""
        return self._keys[position]

    def read(self, position: int) -> StudyRecord:
        """What the shard knows of a study.

        Raises BadSampleError when that is damaged, or not what the index says.
        """
        payload = self.read_member(position, "json")
        try:
            record = StudyRecord.from_json(payload)
        except ValueError as error:
            raise self.bad_sample(position, f"the record is malformed ({error})") from error
        for wrong in self._sample(position)[1].contradictions(record, self.split):
            raise self.bad_sample(position, wrong)
        return record

    def read_member(self, position: int, name: str) -> bytes:
        """The bytes of one member ("json", "image0.jpg" ...), checked against its CRC-32.

        Raises BadSampleError when the member is absent, damaged or of a kind never read.
        """
        return bytes(self.view_member(position, name))

    def view_member(self, position: int, name: str) -> memoryview:
        """The same without a copy of its own."""
        shard, sample = self._sample(position)
        if name.rpartition(".")[2] not in READABLE_KINDS:
            raise self.bad_sample(position, f"member {name!r} is not a jpg, png or json")
        try:
            return self._stored.read(shard, self._places[position], sample, name)
        except DamagedMemberError as error:
            raise self.bad_sample(position, f"member {name!r} {error}") from error

    def bad_sample(self, position: int, reason: str) -> BadSampleError:
        """The error that says why the sample at `position` cannot be used."""
        tar = self._indexes.entries[self._shard(position)].tar_name
        return BadSampleError(self._keys[position], tar, reason)

    def _shard(self, position: int) -> int:
        return bisect_right(self._ends, position)

    def _sample(self, position: int) -> tuple[int, IndexedSample]:
        """The number of a sample's shard, and what its index says."""
        number = self._shard(position)
        return number, self._indexes.sample(number, self._places[position])

    def _looked_at(self, shards: list[_Shard]) -> Iterator[ShardIndex]:
        """The indices one after another; what stays of each is added to `shards`."""
        for index, entry in zip(self._indexes.checked(), self._indexes.entries, strict=True):
            self._stored.check(entry)
            samples = index.samples
            words = samples.words_under(self.policy)
            lacks = list(map(_lacks, samples.views, words, repeat(self.policy)))
            shards.append(_Shard(samples.keys, samples.patient_ids, lacks))
            yield index

    def _lacks_by_record(self, number: int, place: int) -> str | None:
        sample = self._indexes.sample(number, place)
        try:
            payload = self._stored.read(number, place, sample, "json")
            report = StudyRecord.from_json(bytes(payload)).report
        except ValueError:
            return None  # for whoever reads it to name
        words = word_count(select_sentences(report, self.policy))
        return _lacks(sample.views, words, self.policy)


class _Shard(NamedTuple):
    """Of each sample of a shard: key, patient, and what it lacks, if it is not to be used."""

    keys: Sequence[str]
    patients: Sequence[str]
    lacks: Sequence[str | None]


@lru_cache(1 << 12)
def _lacks(views: tuple[View | None, ...], words: int | None, policy: TextPolicy) -> str | None:
    """What a study lacks for a text policy that keeps so many of its words, or None."""
    if not any(view in FRONTAL_VIEWS for view in views):
        return "without a frontal image"
    fewest = POLICIES[policy].minimum_words
    too_few = f"with fewer than {fewest} words under text policy {policy!r}"
    return _UNKNOWN if words is None else too_few if words < fewest else None


def _chosen_patients(shards: Sequence[_Shard], fraction: float) -> frozenset[str] | None:
    """Whose studies are taken; None for everyone's."""
    if fraction == 1:
        return None
    patients = frozenset(chain.from_iterable(shard.patients for shard in shards))
    # By a hash, not the first ones: ids may follow the date or the hospital.
    shuffled = sorted(patients, key=lambda patient: sha256(patient.encode()).digest())
    return frozenset(shuffled[: max(1, round(fraction * len(shuffled)))])


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

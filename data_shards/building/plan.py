"""Which study goes into which split and shard: a pure function of the source and the config."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version

from data_shards.building.hashed_ids import naming
from data_shards.building.settings import ShardsConfig
from data_shards.building.sized_splits import patient_digest, split_by_size, strata_of
from data_shards.building.split_file import listed_splits
from data_shards.errors import InputError
from data_shards.records.manifest import INDEX_VERSION, DroppedSample
from data_shards.records.study import SPLITS, Split
from data_shards.sources.base import Source, StudyRef

_SAFE_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One shard to be: its studies in order, with the key of each."""

    tar_name: str
    split: Split
    studies: tuple[tuple[str, StudyRef], ...]


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """All shards of a build. Equal digests mean equal shards, of images left as they were."""

    shards: tuple[ShardPlan, ...]
    sha256: str
    # Studies that no list of splits names.
    left_out: tuple[DroppedSample, ...] = ()
    warnings: tuple[str, ...] = ()

    def of_part(self, part: str | None) -> tuple[ShardPlan, ...]:
        """Of 3/16 each 16th shard from the third on: a part gets its share of every split."""
        number, total = map(int, (part or "1/1").split("/"))
        return self.shards[number - 1 :: total]


def plan_source(source: Source, config: ShardsConfig, *, fingerprint: str) -> BuildPlan:
    """The shards of all studies of `source`, but those that a `split_file` leaves out.

    Raises InputError as the source and `plan_build` do, and for lists that cannot be followed.
    """
    studies = source.list_studies()
    strata = {}
    if config.stratify_by:
        strata = strata_of(source.labels_of_patients(), config.stratify_by)
    if config.split_file is None:
        return plan_build(studies, config, fingerprint=fingerprint, strata=strata)
    listed = listed_splits(config.split_file, source)
    plan = plan_build(
        [ref for ref in studies if ref not in listed.unlisted],
        config,
        fingerprint=fingerprint + config.split_file.digest(),
        splits=listed.by_patient,
    )
    name = naming(config.hash_ids)
    left_out = tuple(
        DroppedSample(
            key=sample_key(name(ref.patient_id), name(ref.study_id)),
            reason="in no list of split_file",
        )
        for ref in sorted(listed.unlisted)
    )
    return replace(plan, left_out=left_out, warnings=listed.warnings)


def plan_build(
    studies: Sequence[StudyRef],
    config: ShardsConfig,
    *,
    fingerprint: str,
    strata: Mapping[str, str] | None = None,
    splits: Mapping[str, Split] | None = None,
) -> BuildPlan:
    """The shards of `studies`, shuffled by the seed within each split.

    Neither the order of `studies` nor the number of workers matters. `fingerprint` is the
    source's: it changes the digest, not the shards' members. `strata` are the groups of patients
    that splits of exact sizes share out; `splits` are those of all patients, if lists say them.
    Raises InputError for an empty list, duplicate ids and an empty split.
    """
    if not studies:
        raise InputError("the source lists no study: check its paths and filters")
    keys = _keys(studies, naming(config.hash_ids))
    if splits is not None:
        refuse_empty_splits(["train"], splits.values(), of="patients")
    elif config.split_sizes is not None:
        sizes = config.split_sizes.by_split
        splits = split_by_size(studies, sizes, seed=config.seed, strata=strata or {})
    else:
        splits = split_patients(
            studies,
            seed=config.seed,
            validate_fraction=config.validate_fraction,
            test_fraction=config.test_fraction,
        )
    shards: list[ShardPlan] = []
    for split in SPLITS:
        members = [(key, ref) for key, ref in keys.items() if splits[ref.patient_id] == split]
        # By a hash rather than random.shuffle: the same on every Python, whatever the order in
        # which the source lists its studies.
        members.sort(key=lambda each: hashlib.sha256(f"{config.seed}/{each[0]}".encode()).digest())
        for number, start in enumerate(range(0, len(members), config.samples_per_shard)):
            part = tuple(members[start : start + config.samples_per_shard])
            shards.append(ShardPlan(f"{split}-{number:06d}.tar", split, part))
    return BuildPlan(tuple(shards), _digest(shards, config, fingerprint))


def split_patients(
    studies: Sequence[StudyRef], *, seed: int, validate_fraction: float, test_fraction: float
) -> dict[str, Split]:
    """The split of every patient.

    A split that the source gives holds for all studies of that patient; the others are drawn
    one by one from (seed, patient), so that a patient stays where it is when studies are
    added. To a split that the source gives nobody is drawn. Raises InputError for a split that was
    asked for and got nobody.
    """
    splits = {each.patient_id: each.split for each in studies if each.split is not None}
    given = set(splits.values())
    validate_fraction, test_fraction = (
        0.0 if split in given else fraction
        for split, fraction in (("validate", validate_fraction), ("test", test_fraction))
    )
    drawn = {each.patient_id for each in studies} - splits.keys()
    for patient in drawn:
        digest = patient_digest(seed, patient)
        # 53 bits: all that a float holds, so that the quotient never rounds up to 1.
        position = (int.from_bytes(digest[:8], "big") >> 11) / 2**53
        if position < test_fraction:
            splits[patient] = "test"
        elif position < test_fraction + validate_fraction:
            splits[patient] = "validate"
        else:
            splits[patient] = "train"
    asked: dict[Split, float] = {"validate": validate_fraction, "test": test_fraction}
    wanted = {"train", *(split for split, fraction in asked.items() if drawn and fraction > 0)}
    refuse_empty_splits(wanted, splits.values(), of="patients")
    return splits


def refuse_empty_splits(wanted: Iterable[Split], found: Iterable[Split], *, of: str) -> None:
    """Raise InputError naming the splits of `wanted` that are not in `found`."""
    present = set(found)
    empty = [split for split in SPLITS if split in set(wanted) - present]
    if empty:
        remedies = {
            "train": "lower the other fractions or check the source's split column",
            "validate": "raise validate_fraction, set it to 0, or take another seed",
            "test": "raise test_fraction, set it to 0, or take another seed",
        }
        raise InputError(f"split {empty[0]!r} has no {of}: {remedies[empty[0]]}")


def sample_key(patient_id: str, study_id: str) -> str:
    """`<patient>_<study>`, safe as a file name and without dots.

    Ids with other characters, or too long for a tar header, are replaced by what is safe of
    them and a hash of the whole.
    """
    key = f"{patient_id}_{study_id}"
    if _SAFE_KEY.fullmatch(key):
        return key
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", key)[:48]
    return f"{safe}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def _keys(studies: Sequence[StudyRef], name: Callable[[str], str]) -> dict[str, StudyRef]:
    keys: dict[str, StudyRef] = {}
    for ref in studies:
        other = keys.setdefault(sample_key(name(ref.patient_id), name(ref.study_id)), ref)
        if other is not ref:
            raise InputError(
                f"duplicate ids: patient {ref.patient_id}, study {ref.study_id} and patient "
                f"{other.patient_id}, study {other.study_id}: give every study an id of its own"
            )
    return keys


def _digest(shards: Sequence[ShardPlan], config: ShardsConfig, fingerprint: str) -> str:
    """SHA-256 of all that decides the bytes of the shards, the images' content aside."""
    described = {
        "schema_version": INDEX_VERSION,
        # Another release may split sentences or resize images in another way.
        "release": version("radalign"),
        "source": fingerprint,
        "config": config.model_dump(exclude={"output", "workers", "part"}),
        "shards": [
            [
                shard.tar_name.removesuffix(".tar"),
                [[key, ref.patient_id, ref.study_id] for key, ref in shard.studies],
            ]
            for shard in shards
        ],
    }
    # Paths are cut to their names: an archive that was moved is the same archive.
    text = json.dumps(described, sort_keys=True, default=lambda path: path.name)
    return hashlib.sha256(text.encode()).hexdigest()

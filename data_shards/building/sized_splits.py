"""Splits of exact sizes, by patient, with rare labels in each of them."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from data_shards.errors import InputError
from data_shards.records.study import SPLITS, Split
from data_shards.sources.base import StudyRef


def split_by_size(
    studies: Sequence[StudyRef],
    sizes: Mapping[Split, int],
    *,
    seed: int,
    strata: Mapping[str, str],
) -> dict[str, Split]:
    """The split of every patient, so that test and validation hold as many studies as `sizes` say.

    Patients are taken whole, in an order by (seed, patient), each where it still fits: the sizes
    are exact wherever there are patients of one study enough, and else the nearest below. `strata`
    names the group of a patient (others are in one more); of each group a split gets its share.
    A split that the source gives holds, and is not added to.

    Raises InputError for sizes that leave nothing for training.
    """
    splits: dict[str, Split] = {
        each.patient_id: each.split for each in studies if each.split is not None
    }
    counts = Counter(each.patient_id for each in studies if each.patient_id not in splits)
    if not counts:
        return splits
    wanted = {split: size for split, size in sizes.items() if split not in splits.values()}
    total = sum(counts.values())
    if sum(wanted.values()) >= total:
        asked = ", ".join(f"{split}={size:,}" for split, size in wanted.items())
        raise InputError(
            f"split_sizes ({asked}) leave none of {total:,} studies for training: make them smaller"
        )
    groups: dict[str, list[str]] = defaultdict(list)
    for patient in sorted(counts, key=lambda each: patient_digest(seed, each)):
        groups[strata.get(patient, "")].append(patient)
    # The smallest first: what does not fit there is made up for in the largest.
    ordered = sorted(groups.values(), key=lambda each: (sum(counts[p] for p in each), each))
    for split in ("test", "validate"):
        seen = taken = 0
        for group in ordered:
            seen += sum(counts[patient] for patient in group)
            share = round(wanted.get(split, 0) * seen / total)
            for patient in group:
                if patient not in splits and taken + counts[patient] <= share:
                    splits[patient] = split
                    taken += counts[patient]
    return {**dict.fromkeys(counts, SPLITS[0]), **splits}


def patient_digest(seed: int, patient: str) -> bytes:
    """What a patient's place in the draw of splits is made of."""
    return hashlib.sha256(f"{seed}:{patient}".encode()).digest()


def strata_of(
    labels: Mapping[str, Mapping[str, bool]], stratify_by: Sequence[str]
) -> dict[str, str]:
    """By patient, the rarest of the labels that it has; patients with none of them are left out.

    `labels` says by patient which labels any of its studies has. Raises InputError for a label that
    no patient is said to have or not.
    """
    known = {name for each in labels.values() for name in each}
    for name in stratify_by:
        if name not in known:
            found = ", ".join(sorted(known)) or "none"
            raise InputError(f"stratify_by: no label {name!r}: the source has {found}")
    have = {name: sum(each.get(name, False) for each in labels.values()) for name in stratify_by}
    rarest_first = sorted(stratify_by, key=lambda name: (have[name], name))
    strata = {}
    for patient, each in labels.items():
        mine = next((name for name in rarest_first if each.get(name)), None)
        if mine is not None:
            strata[patient] = mine
    return strata

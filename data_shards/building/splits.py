"""Train, validate and test by patient: the source's split where it has one, else a draw."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from data_shards.errors import InputError
from data_shards.records.study import SPLITS, Split
from data_shards.sources.base import StudyRef, refuse_patients_in_two_splits


def split_patients(
    studies: Sequence[StudyRef], *, seed: int, validate_fraction: float, test_fraction: float
) -> dict[str, Split]:
    """The split of every patient.

    A split that the source gives holds for all studies of that patient; the others are drawn
    one by one from (seed, patient), so that a patient stays where it is when studies are
    added. Raises InputError for a patient whom the source puts in two splits, and for a split
    that was asked for and got nobody.
    """
    refuse_patients_in_two_splits(studies, where="the source")
    splits = {each.patient_id: each.split for each in studies if each.split is not None}
    drawn = {each.patient_id for each in studies} - splits.keys()
    for patient in drawn:
        position = _position(seed, patient)
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


def _position(seed: int, patient_id: str) -> float:
    """A number in [0, 1) that depends on nothing but the seed and the patient."""
    digest = hashlib.sha256(f"{seed}:{patient_id}".encode()).digest()
    # 53 bits: all that a float holds, so that the quotient never rounds up to 1.
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53

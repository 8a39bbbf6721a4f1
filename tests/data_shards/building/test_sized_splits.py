"""Splits of exact sizes: by patient, by seed, with rare labels in each."""

from __future__ import annotations

from collections import Counter

import pytest

from data_shards.building.sized_splits import split_by_size, strata_of
from data_shards.errors import InputError
from data_shards.records.study import Split
from data_shards.sources.base import StudyRef

SIZES: dict[Split, int] = {"validate": 5337, "test": 5337}


def images(count: int) -> list[StudyRef]:
    return [StudyRef(f"p{number}", f"p{number}") for number in range(count)]


def test_lovts_sizes_of_rsna_are_exact() -> None:
    splits = split_by_size(images(26_684), SIZES, seed=0, strata={})
    assert Counter(splits.values()) == {"train": 16_010, "validate": 5337, "test": 5337}


def test_patients_are_whole_and_sizes_count_studies() -> None:
    studies = [StudyRef(f"p{n}", f"s{n}.{m}") for n in range(105) for m in range(1 + n % 4)]
    splits = split_by_size(studies, {"validate": 44, "test": 44}, seed=3, strata={})
    counts = Counter(splits[each.patient_id] for each in studies)
    assert (counts["validate"], counts["test"]) == (44, 44)
    assert splits.keys() == {each.patient_id for each in studies}


def test_neither_order_nor_other_studies_of_a_patient_decide_and_seeds_differ() -> None:
    studies = images(300)
    sizes: dict[Split, int] = {"validate": 30, "test": 60}
    first = split_by_size(studies, sizes, seed=0, strata={})
    assert split_by_size(studies[::-1], sizes, seed=0, strata={}) == first
    assert split_by_size(studies, sizes, seed=1, strata={}) != first


def test_each_split_gets_its_share_of_rare_labels() -> None:
    labels = {f"p{n}": {"Nodule": n < 20, "Mass": n < 50} for n in range(1000)}
    strata = strata_of(labels, ["Mass", "Nodule"])
    # A patient with both counts for the rarer one.
    assert Counter(strata.values()) == {"Nodule": 20, "Mass": 30}
    sizes: dict[Split, int] = {"validate": 100, "test": 200}
    splits = split_by_size(images(1000), sizes, seed=0, strata=strata)
    assert Counter(splits.values()) == {"train": 700, "validate": 100, "test": 200}
    found = Counter((strata.get(patient), split) for patient, split in splits.items())
    assert (found["Nodule", "test"], found["Nodule", "validate"]) == (4, 2)
    assert (found["Mass", "test"], found["Mass", "validate"]) == (6, 3)


def test_a_split_of_the_source_holds_and_is_not_added_to() -> None:
    given = [StudyRef("dev", "d", "test")]
    splits = split_by_size([*given, *images(50)], {"validate": 10, "test": 7}, seed=0, strata={})
    assert Counter(splits.values()) == {"train": 40, "validate": 10, "test": 1}


def test_where_the_source_gives_all_splits_sizes_ask_for_nothing() -> None:
    given = [StudyRef("a", "1", "train"), StudyRef("b", "1", "test")]
    assert split_by_size(given, SIZES, seed=0, strata={}) == {"a": "train", "b": "test"}


def test_sizes_that_leave_nothing_and_labels_that_nobody_has_are_refused() -> None:
    with pytest.raises(InputError, match=r"split_sizes .validate=5, test=5. leave none of 10"):
        split_by_size(images(10), {"validate": 5, "test": 5}, seed=0, strata={})
    with pytest.raises(InputError, match="no label 'Nodul': the source has Mass, Nodule"):
        strata_of({"p": {"Nodule": True, "Mass": False}}, ["Nodul"])

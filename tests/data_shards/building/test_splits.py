from collections import Counter

import pytest

from data_shards.building.plan import split_patients
from data_shards.errors import InputError
from data_shards.records.study import Split
from data_shards.sources.base import StudyRef


def undecided(patients: int) -> list[StudyRef]:
    return [StudyRef(f"p{number}", "s") for number in range(patients)]


def split(studies: list[StudyRef], seed: int = 0) -> dict[str, Split]:
    return split_patients(studies, seed=seed, validate_fraction=0.1, test_fraction=0.2)


def test_drawn_splits_have_the_wanted_sizes() -> None:
    counts = Counter(split(undecided(20_000)).values())
    assert counts["validate"] / 20_000 == pytest.approx(0.1, abs=0.01)
    assert counts["test"] / 20_000 == pytest.approx(0.2, abs=0.01)


def test_a_patient_stays_in_its_split_when_others_are_added() -> None:
    few, many = split(undecided(100)), split(undecided(1000))
    assert few.items() <= many.items()


def test_another_seed_draws_other_splits() -> None:
    assert split(undecided(100), seed=0) != split(undecided(100), seed=1)


def test_the_official_split_wins_for_all_studies_of_its_patient() -> None:
    studies = [
        *undecided(100),
        *(StudyRef(f"p{number}", "t", "validate") for number in range(50)),
    ]
    splits = split(studies)
    assert all(splits[f"p{number}"] == "validate" for number in range(50))


def test_official_splits_need_no_draw_and_no_test_set() -> None:
    studies = [StudyRef("a", "1", "train"), StudyRef("b", "1", "validate")]
    assert split(studies) == {"a": "train", "b": "validate"}


def test_a_split_that_was_asked_for_and_is_empty_is_refused_with_a_remedy() -> None:
    with pytest.raises(InputError, match="'validate' has no patients: raise validate_fraction"):
        split_patients(undecided(3), seed=0, validate_fraction=1e-9, test_fraction=0.0)
    with pytest.raises(InputError, match="'train' has no patients"):
        split([StudyRef("a", "1", "test")])

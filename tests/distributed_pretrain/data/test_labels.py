"""Labels that are not mentioned, or uncertain, are what a profile takes them for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from distributed_pretrain.data.labels import wanted_labels
from distributed_pretrain.data.settings import DataConfig
from tests.distributed_pretrain.data.test_masks_and_boxes import record

NAMES = ["Edema", "Mass", "Nodule", "Fracture"]
STUDY = replace(record(), labels={"Edema": -1.0, "Mass": -1.0, "Nodule": 1.0, "Other": 0.0})


def wanted(**values: Any) -> list[float]:
    return wanted_labels(
        STUDY, DataConfig.model_validate({"shards": ".", "labels": NAMES, **values})
    )


def test_they_are_what_the_profile_takes_them_for() -> None:
    nan = pytest.approx(float("nan"), nan_ok=True)
    assert wanted() == [-1, -1, 1, nan]
    assert wanted(unmentioned="absent") == [-1, -1, 1, 0]
    taken = wanted(uncertain_present=["Edema", "Nodule"], uncertain_absent=["Mass"])
    assert taken == [1, 0, 1, nan]


def test_a_label_is_not_taken_for_both() -> None:
    with pytest.raises(ValidationError, match="'Mass': in uncertain_present and in"):
        wanted(uncertain_present=["Mass"], uncertain_absent=["Mass", "Edema"])

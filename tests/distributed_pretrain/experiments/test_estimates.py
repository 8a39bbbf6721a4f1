"""Means of seeds with their intervals, and what a difference between two rows says."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from distributed_pretrain.experiments.estimates import (
    estimate,
    paired_difference,
    student,
    verdict_of,
)
from distributed_pretrain.measures.metric import Metric


def test_the_interval_is_student_s() -> None:
    found = estimate([0.1, 0.2, 0.6])
    assert found.mean == pytest.approx(0.3)
    deviation = math.sqrt((0.2**2 + 0.1**2 + 0.3**2) / 2)
    assert found.half_width == pytest.approx(4.303 * deviation / math.sqrt(3))
    assert estimate([0.4]).half_width is None


@pytest.mark.parametrize(
    ("freedom", "point"), [(1, 12.706), (4, 2.776), (30, 2.042), (31, 2.040), (1000, 1.962)]
)
def test_students_points_are_those_of_the_tables(freedom: int, point: float) -> None:
    assert student(freedom) == pytest.approx(point, abs=0.004)


def test_differences_are_taken_within_seeds() -> None:
    # The spread of both is wide, that of their difference is not.
    difference = paired_difference({0: 0.1, 1: 0.5, 2: 0.9}, {0: 0.09, 1: 0.48, 2: 0.879, 3: 0.0})
    assert difference is not None
    assert difference.mean == pytest.approx(0.017)
    accuracy = Metric("accuracy", "accuracy")
    assert verdict_of(difference, accuracy) == "holds"
    assert verdict_of(difference, replace(accuracy, better="low")) == "does not hold"

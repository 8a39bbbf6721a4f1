"""Tokens that are computed for those that reports have."""

from __future__ import annotations

import pytest

from distributed_pretrain.benchmark.padding import LIKE_MIMIC, Lengths, computed_to_real


def test_reports_of_full_rows_have_no_padding() -> None:
    assert computed_to_real(Lengths(64, 1e-9), micro_batch=4) == 1


def test_reports_that_share_no_row_have_all_of_it() -> None:
    assert computed_to_real(Lengths(40, 1e-9), micro_batch=1) == pytest.approx(64 / 40)


def test_packed_reports_are_computed_with_less_than_a_third_more() -> None:
    assert 1 < computed_to_real(LIKE_MIMIC, micro_batch=32) < 1.3

"""What the benchmark of checkpoints counts."""

from __future__ import annotations

import pytest

from distributed_pretrain.benchmark.checkpoint import round_figures


def test_a_benchmark_round_counts_the_snapshot_and_compares_equal_numbers_of_steps() -> None:
    figures = round_figures([2.0, 2.0, 9.0], 0.5, [2.0, 2.5], 3.0, state_bytes=9_000_000)
    assert figures["background_ratio"] == pytest.approx(5.0 / 4.0)
    assert figures["at_once_ratio"] == pytest.approx(7.0 / 4.0)
    assert figures["snapshot_and_step_ratio"] == pytest.approx(1.25)
    assert figures["at_once_and_step_ratio"] == pytest.approx(2.5)
    assert figures["background_mb_per_second"] == pytest.approx(2.0)

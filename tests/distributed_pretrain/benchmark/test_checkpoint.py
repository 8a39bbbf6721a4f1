"""What the benchmark of checkpoints counts and prints."""

from __future__ import annotations

import pytest

from distributed_pretrain.__main__ import main
from distributed_pretrain.benchmark.checkpoint import Round, figures_of


def test_a_benchmark_round_counts_the_snapshot_and_compares_equal_numbers_of_steps() -> None:
    measured = Round(usual=[2.0, 2.0, 9.0], snapshot=0.5, beside=[2.0, 2.5], at_once=3.0)
    assert measured.background_ratio == pytest.approx(5.0 / 4.0)
    assert measured.at_once_ratio == pytest.approx(7.0 / 4.0)
    figures = figures_of([measured], state_bytes=9_000_000)
    assert figures["snapshot_and_step_ratio"] == pytest.approx(1.25)
    assert figures["at_once_and_step_ratio"] == pytest.approx(2.5)
    assert figures["background_mb_per_second"] == pytest.approx(2.0)


def test_the_benchmark_command_measures_both_kinds_of_save(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sizes = ["batch=2", "backbone=resnet18", "hidden_size=64", "layers=1", "image_size_px=64"]
    lengths = ["rounds=1", "usual_steps=1", "warmup_steps=0"]
    assert main(["benchmark", "checkpoint", *sizes, *lengths]) == 0
    printed = capsys.readouterr().out
    for name in ("usual_step_seconds", "snapshot_seconds", "background_ratio", "at_once_ratio"):
        assert name in printed
    assert "at most 1.2: " in printed

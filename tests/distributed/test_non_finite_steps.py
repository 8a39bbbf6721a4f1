"""Losses that are not finite: steps without an update, a return to older weights, and the end."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.metrics import is_timing
from tests.distributed.ranks import start_command

pytestmark = pytest.mark.xdist_group("ranks")

BATCH = 8  # of the tiny profile
STEPS = 14


def train(profile: Path, folder: Path, *overrides: str, **faults: Any) -> tuple[int | None, str]:
    """The exit status of a run of one process, and what it said."""
    ranks = start_command(
        "pretrain",
        profile,
        f"run_folder={folder / 'run'}",
        f"training.max_steps={STEPS}",
        "training.gradient_norms_every_steps=5",
        "training.peak_teraflops=0.1",
        *overrides,
        world_size=1,
        folder=folder,
        faults=faults,
    )
    return ranks.wait()[0], ranks.said(0)


def decided(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    lines = RunFolder(folder / "run").read_metrics()
    kept = [line for line in lines if line["split"] == split]
    return [{k: v for k, v in line.items() if not is_timing(k)} for line in kept]


def test_after_three_bad_batches_training_goes_back_and_on_with_the_next_samples(
    tiny_profile: Path, tmp_path: Path
) -> None:
    bad = [BATCH * step for step in (6, 7, 8)]  # checkpoints at 4 and, among the bad, at 8
    validating = "training.validate_every_steps=4"
    status, said = train(tiny_profile, tmp_path, validating, bad_batches=bad)
    assert status == 0, said
    assert [line["step"] for line in decided(tmp_path, "validate")] == [4, 8, 12, STEPS]
    assert f"back to step 4, and on with the samples after {8 * BATCH}" in said
    steps = decided(tmp_path)
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    assert all(math.isfinite(line["total"]) for line in steps)
    # Step 5 is trained with the ninth batch: the fifth is left out with the bad ones.
    assert [line["skipped_steps"] for line in steps] == [0] * 4 + [3] * 10
    assert steps[4]["epoch"] == pytest.approx(9 * BATCH / 56)
    skipped = RunFolder(tmp_path / "run").skipped.read()
    assert [line["samples_consumed"] for line in skipped] == bad
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [point.step for point in events.Scalars("train/total")] == list(range(1, STEPS + 1))


def test_a_run_that_was_stopped_among_bad_batches_goes_back_too(
    tiny_profile: Path, tmp_path: Path
) -> None:
    bad = [BATCH * step for step in (9, 10, 11)]
    chatty = "training.log_interval_seconds=0.001"
    stop = {"number": signal.SIGTERM, "rank": 0, "step": 9}
    status, said = train(tiny_profile, tmp_path, chatty, bad_batches=bad, signal=stop)
    assert status == 75, said
    status, said = train(tiny_profile, tmp_path, chatty, bad_batches=bad)
    assert status == 0, said
    assert "going on from step 9" in said
    assert "back to step 8" in said


def test_bad_batches_do_not_push_out_the_checkpoint_from_before_them(
    tiny_profile: Path, tmp_path: Path
) -> None:
    often = ("training.checkpoint_every_steps=1", "training.keep_checkpoints=1")
    bad = [BATCH * step for step in (6, 7, 8)]
    status, said = train(tiny_profile, tmp_path, *often, bad_batches=bad)
    assert status == 0, said
    assert "back to step 5" in said


def test_single_bad_batches_cost_their_steps_and_nothing_else(
    tiny_profile: Path, tmp_path: Path
) -> None:
    status, said = train(tiny_profile, tmp_path, bad_batches=[2 * BATCH, 5 * BATCH])
    assert status == 0, said
    assert [line["skipped_steps"] for line in decided(tmp_path)] == [0, 1, 1, 1] + [2] * 10


def test_too_many_bad_batches_end_the_run_with_one_line(tiny_profile: Path, tmp_path: Path) -> None:
    status, said = train(
        tiny_profile,
        tmp_path,
        "training.non_finite.stop_after=2",
        bad_batches=[BATCH, 3 * BATCH],
    )
    assert status == 1
    assert "error: step 3: losses or gradients were not finite in 2 steps of this run" in said
    assert "skipped.jsonl" in said
    assert "Traceback" not in said


def test_without_an_older_checkpoint_there_is_nothing_to_go_back_to(
    tiny_profile: Path, tmp_path: Path
) -> None:
    status, said = train(tiny_profile, tmp_path, bad_batches=[BATCH, 2 * BATCH, 3 * BATCH])
    assert status == 1
    assert "3 steps in a row, and no checkpoint is older" in said


def test_steps_tell_their_gradients_by_term_and_how_busy_the_device_was(
    tiny_profile: Path, tmp_path: Path
) -> None:
    status, said = train(tiny_profile, tmp_path)
    assert status == 0, said
    lines = RunFolder(tmp_path / "run").read_metrics()
    steps = {line["step"]: line for line in lines if line["split"] == "train"}
    terms = {f"gradient_norm_{name}" for name in ("global", "local_image", "local_report")}
    assert [step for step in steps if terms <= steps[step].keys()] == [5, 10]
    weighted_sum = sum(steps[5][name] for name in terms)
    assert 0 < steps[5]["gradient_norm"] <= weighted_sum * (1 + 1e-5)
    busy = steps[5]["model_flops_per_second"]
    assert steps[5]["mfu"] == pytest.approx(busy / 0.1e12)
    assert steps[5]["slowest_data_wait_seconds"] >= 0
    starts = RunFolder(tmp_path / "run").starts.read()
    assert [(start["step"], start["world_size"]) for start in starts] == [(0, 1)]

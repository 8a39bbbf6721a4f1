from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.metrics import is_timing

if TYPE_CHECKING:
    from tests.forks import Started
    from tests.tiny.run import Command

STEPS = 40
# One worker runs these: they share the uninterrupted run.
pytestmark = pytest.mark.xdist_group("pretrain")


@pytest.fixture(scope="module")
def finished_run(
    tiny_profile: Path, command: Command, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The run folder of an uninterrupted run, begun as a user begins it."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    arguments = ("pretrain", tiny_profile, f"run_folder={folder}", "training.pictures=true")
    command.complete(command(*arguments, launcher=(sys.executable,)))
    return folder


def decided(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without the fields that time decides."""
    lines = RunFolder(folder).read_metrics()
    return [{k: v for k, v in line.items() if not is_timing(k)} for line in lines]


def assert_same_outcome(folder: Path, expected: Path) -> None:
    assert decided(folder) == decided(expected)
    weights = load_file(folder / "checkpoints" / "last" / "model.safetensors")
    wanted = load_file(expected / "checkpoints" / "last" / "model.safetensors")
    assert weights.keys() == wanted.keys()
    assert all(torch.equal(weights[name], wanted[name]) for name in wanted)


def wait_for_step(folder: Path, step: int, process: Started) -> None:
    """Return as soon as metrics.jsonl holds `step`."""
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and f'"step": {step},' in metrics.read_text()):
        assert process.poll() is None, "the run ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_run_leaves_metrics_checkpoints_and_its_config(finished_run: Path) -> None:
    lines = RunFolder(finished_run).read_metrics()
    trained = [line for line in lines if line["split"] == "train"]
    assert [line["step"] for line in trained] == list(range(1, STEPS + 1))
    validations = [line for line in lines if line["split"] == "validate"]
    assert [line["step"] for line in validations] == [10, 20, 30, 40]
    assert {"total", "global", "local_image", "local_report"} <= validations[0].keys()
    assert {f"image_to_report_recall_at_{k}" for k in (1, 5, 10)} <= validations[0].keys()
    assert "recall_sum" in validations[0]
    assert {"learning_rate", "gradient_norm", "pairs_per_second", "data_wait_share"} <= lines[
        0
    ].keys()
    assert all(0 < line["padding_share"] < 1 < line["tokens_per_second"] for line in trained)
    names = {path.name for path in (finished_run / "checkpoints").iterdir()}
    assert {"last", "best", "step_00000040"} <= names
    assert yaml.safe_load((finished_run / "config.yaml").read_text())["seed"] == 12345


def test_the_loss_falls(finished_run: Path) -> None:
    totals = [line["total"] for line in decided(finished_run) if line["split"] == "train"]
    assert sum(totals[-5:]) < 0.95 * sum(totals[:5])


def test_tensorboard_has_the_same_numbers_and_the_pictures(finished_run: Path) -> None:
    events = EventAccumulator(str(finished_run / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    totals = [point.value for point in events.Scalars("train/total")]
    wanted = [line["total"] for line in decided(finished_run) if line["split"] == "train"]
    assert totals == pytest.approx(wanted, rel=1e-6)
    assert set(events.Tags()["images"]) == {
        "pictures/similarity_matrix",
        "pictures/region_weights",
        "pictures/sentence_maps",
    }


def test_a_run_killed_twice_ends_as_if_nothing_had_happened(
    tiny_profile: Path, command: Command, finished_run: Path, tmp_path: Path
) -> None:
    arguments = ("pretrain", tiny_profile, f"run_folder={tmp_path / 'run'}")
    for step in (7, 22):
        process = command(*arguments)
        wait_for_step(tmp_path / "run", step, process)
        process.kill()
    assert "going on from step" in command.complete(command(*arguments))
    assert_same_outcome(tmp_path / "run", finished_run)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [point.step for point in events.Scalars("train/total")] == list(range(1, STEPS + 1))


def test_sigterm_saves_at_the_next_step_and_asks_to_be_started_again(
    tiny_profile: Path, command: Command, finished_run: Path, tmp_path: Path
) -> None:
    arguments = ("pretrain", tiny_profile, f"run_folder={tmp_path / 'run'}")
    process = command(*arguments)
    wait_for_step(tmp_path / "run", 5, process)
    process.send_signal(signal.SIGTERM)
    assert "checkpoint saved" in command.complete(process, status=75)
    command.complete(command(*arguments))
    assert_same_outcome(tmp_path / "run", finished_run)


def test_a_damaged_checkpoint_is_named_and_the_previous_one_used(
    tiny_profile: Path, command: Command, finished_run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished_run, folder, symlinks=True)
    weights = folder / "checkpoints" / "step_00000040" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(content)
    said = command.complete(command("pretrain", tiny_profile, f"run_folder={folder}"))
    assert "step_00000040: model.safetensors does not match its checksum" in said
    assert "going on from step 36" in said
    assert_same_outcome(folder, finished_run)


@pytest.mark.slow  # tests/distributed holds ranks against one process without the command
def test_two_ranks_train_as_one(tiny_profile: Path, command: Command, tmp_path: Path) -> None:
    """Same samples, losses and recalls: batch norms share their statistics."""
    overrides = (
        "training.max_steps=6",
        "training.validate_every_steps=3",
        "method.report_encoder.dropout=0.0",
        # Adam makes whole steps of gradients that are only rounding, unless epsilon is larger.
        "optimizer.learning_rate=1e-4",
        "optimizer.epsilon=1e-3",
    )
    launcher = (
        *(sys.executable, "-m", "torch.distributed.run"),
        *("--standalone", "--nproc-per-node", "2"),
    )
    one, two = tmp_path / "one", tmp_path / "two"
    command.complete(command("pretrain", tiny_profile, f"run_folder={one}", *overrides))
    command.complete(
        command("pretrain", tiny_profile, f"run_folder={two}", *overrides, launcher=launcher)
    )
    (start,) = map(json.loads, (two / "starts.jsonl").read_text().splitlines())
    assert start["world_size"] == 2
    for alone, together in zip(decided(one), decided(two), strict=True):
        assert together.pop("split") == alone.pop("split")
        assert together == pytest.approx(alone, rel=2e-3, abs=1e-4)

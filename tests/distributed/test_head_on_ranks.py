"""A linear head on frozen features goes through the trainer as a method does."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

from data_shards.profiles import load_profile
from data_shards.synthetic_shards import write_synthetic_shards
from distributed_pretrain.pretrain.build import pretrain
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.metrics import is_timing
from tests.distributed.ranks import Ranks, start_command
from tests.paths import CONFIGS

pytestmark = pytest.mark.xdist_group("ranks")

LABELS = ("Atelectasis", "Edema")
STEPS = 30


@pytest.fixture(scope="module")
def overrides(tiny_profile: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """What makes the profile of a linear head small, on a pre-trained encoder that is small too."""
    folder = tmp_path_factory.mktemp("encoder")
    write_synthetic_shards(
        folder / "shards",
        studies={"train": 40, "validate": 10, "test": 10},
        studies_a_shard=10,
        longest_side_px=72,
        labels=LABELS,
    )
    asked = [f"run_folder={folder / 'run'}", "training.max_steps=1", "training.pictures=false"]
    assert pretrain(load_profile(PretrainConfig, tiny_profile, asked))
    return (
        f"encoder.run_folder={folder / 'run'}",
        f"data.shards={folder / 'shards'}",
        f"data.labels={json.dumps(LABELS)}",
        "data.image_size_px=64",
        "data.global_batch=8",
        f"training.max_steps={STEPS}",
        "training.validate_every_steps=5",
        "optimizer.learning_rate=0.03",
        "schedule.name=constant",
        "training.checkpoint_every_steps=1",
        "training.rank_timeout_seconds=5",
    )


def start(overrides: tuple[str, ...], folder: Path, world_size: int, **faults: Any) -> Ranks:
    return start_command(
        "downstream",
        CONFIGS / "downstream" / "phantom_linear.yaml",
        f"run_folder={folder / 'run'}",
        *overrides,
        world_size=world_size,
        folder=folder,
        faults=faults,
    )


def decided(folder: Path) -> list[dict[str, Any]]:
    lines = RunFolder(folder / "run").read_metrics()
    return [{k: v for k, v in line.items() if not is_timing(k)} for line in lines]


def weights(run: RunFolder, checkpoint: str = "last") -> dict[str, Tensor]:
    return load_file(run.checkpoint(checkpoint) / "model.safetensors")


@pytest.fixture(scope="module")
def one_rank(overrides: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run of one process."""
    folder = tmp_path_factory.mktemp("one_rank")
    start(overrides, folder, world_size=1).complete()
    return folder


def test_the_head_learns_and_the_encoder_stays(overrides: tuple[str, ...], one_rank: Path) -> None:
    encoder = weights(RunFolder(Path(overrides[0].partition("=")[2])), "best")
    head = weights(RunFolder(one_rank / "run"))
    frozen = {name for name in head if name.startswith("image_encoder.")}
    assert head.keys() - frozen == {"classifier.weight", "classifier.bias"}
    assert frozen
    assert all(head[name].equal(encoder[name]) for name in frozen)
    losses = [line["total"] for line in decided(one_rank) if line["split"] == "train"]
    assert len(losses) == STEPS
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5]), "the last epoch beside the first"


def test_it_is_judged_on_the_test_split(one_rank: Path) -> None:
    judged = json.loads(RunFolder(one_rank / "run").evaluation("test", "best").read_text())
    assert {"auroc", "total"} <= judged.keys()
    assert 0 <= judged["auroc"] <= 1


def test_two_ranks_train_as_one(overrides: tuple[str, ...], one_rank: Path, tmp_path: Path) -> None:
    start(overrides, tmp_path, world_size=2).complete()
    for ours, expected in zip(decided(tmp_path), decided(one_rank), strict=True):
        assert ours.pop("split") == expected.pop("split")
        assert ours == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("world_size", [1, 2])
def test_killed_and_gone_on_with_it_ends_the_same_to_the_last_bit(
    world_size: int, overrides: tuple[str, ...], one_rank: Path, tmp_path: Path
) -> None:
    whole = one_rank
    if world_size > 1:
        whole = tmp_path / "whole"
        start(overrides, whole, world_size).complete()
    killed = tmp_path / "killed"
    for step in (3, 6):
        kill = {"number": signal.SIGKILL, "rank": world_size - 1, "step": step}
        statuses = start(overrides, killed, world_size, signal=kill).wait()
        assert statuses == [75] * (world_size - 1) + [-signal.SIGKILL]
    start(overrides, killed, world_size).complete()
    assert decided(killed) == decided(whole)
    ours, expected = weights(RunFolder(killed / "run")), weights(RunFolder(whole / "run"))
    assert ours.keys() == expected.keys()
    assert all(ours[name].equal(expected[name]) for name in expected)

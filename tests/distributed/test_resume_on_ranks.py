"""A run on several ranks that is stopped, killed or gone on with elsewhere ends the same."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.metrics import is_timing
from tests.distributed.ranks import Ranks, start_command

pytestmark = pytest.mark.xdist_group("ranks")

STEPS = 12
# Everything that a split over ranks would change is off: dropout, and statistics of batches.
EXACT_SPLIT = (
    "data.global_batch=24",
    "method.image_encoder.norm=group",
    "method.projection_norm=group",
    "method.report_encoder.dropout=0.0",
    "training.validate_every_steps=6",
    "training.checkpoint_every_steps=3",
    "training.gradient_norms_every_steps=4",
    # Adam makes whole steps of gradients that are nothing but rounding, unless epsilon is larger.
    "optimizer.learning_rate=1e-4",
    "optimizer.epsilon=1e-3",
    "training.rank_timeout_seconds=5",
)


@pytest.fixture(scope="module")
def one_rank(tiny_profile: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of an uninterrupted run of one process; `keys` has its samples."""
    folder = tmp_path_factory.mktemp("one")
    start(tiny_profile, folder, world_size=1).complete()
    return folder


def start(profile: Path, folder: Path, *overrides: str, world_size: int, **faults: Any) -> Ranks:
    (folder / "keys").mkdir(parents=True, exist_ok=True)
    return start_command(
        "pretrain",
        profile,
        f"run_folder={folder / 'run'}",
        *EXACT_SPLIT,
        f"training.max_steps={STEPS}",
        *overrides,
        world_size=world_size,
        folder=folder,
        faults={"record": str(folder / "keys")} | faults,
    )


def recorded(folder: Path) -> dict[int, set[str]]:
    """The samples of each global batch, by the count consumed after it."""
    batches: dict[int, list[str]] = {}
    for path in (folder / "keys").iterdir():
        for line in map(json.loads, path.read_text().splitlines()):
            batches.setdefault(line["consumed"], []).extend(line["keys"])
    for keys in batches.values():
        assert len(keys) == len(set(keys)), "a sample twice in a batch"
    return {consumed: set(keys) for consumed, keys in batches.items()}


def decided(folder: Path) -> list[dict[str, Any]]:
    lines = RunFolder(folder / "run").read_metrics()
    return [{k: v for k, v in line.items() if not is_timing(k)} for line in lines]


def assert_close(ours: Path, expected: Path) -> None:
    for line, wanted in zip(decided(ours), decided(expected), strict=True):
        assert line.keys() == wanted.keys()
        for name, value in wanted.items():
            if isinstance(value, str):
                assert line[name] == value
                continue
            # A norm over all weights gathers the rounding that each CPU does in its own way.
            relative = 3e-2 if name.startswith("gradient_norm") else 1e-3
            assert line[name] == pytest.approx(value, rel=relative, abs=1e-4), (name, line)


def test_a_run_goes_on_with_any_number_of_ranks(
    tiny_profile: Path, one_rank: Path, tmp_path: Path
) -> None:
    """Four ranks, then three, two and one: the same samples, and the same losses."""
    for world_size, last_step in ((4, 3), (3, 6), (2, 9)):
        stop = {"number": signal.SIGUSR2, "rank": world_size - 1, "step": last_step}
        ranks = start(tiny_profile, tmp_path, world_size=world_size, signal=stop)
        assert ranks.wait() == [75] * world_size, ranks.said(0)
        assert f"interrupted at step {last_step}: checkpoint saved" in ranks.said(0)
    start(tiny_profile, tmp_path, world_size=1).complete()
    assert recorded(tmp_path) == recorded(one_rank)
    assert len(recorded(tmp_path)) == STEPS
    assert_close(tmp_path, one_rank)


def test_plain_accumulation_groups_the_same_samples_on_any_number_of_ranks(
    tiny_profile: Path, tmp_path: Path
) -> None:
    overrides = ("training.accumulation=plain", "training.accumulation_steps=3")
    for world_size in (1, 2):
        folder = tmp_path / str(world_size)
        run = start(tiny_profile, folder, *overrides, "training.max_steps=3", world_size=world_size)
        run.complete()
    assert_close(tmp_path / "2", tmp_path / "1")


@pytest.mark.slow
def test_a_run_goes_on_with_another_accumulation(tiny_profile: Path, tmp_path: Path) -> None:
    """What a batch is computed in is free: where the norms are exact, nothing else changes."""
    start(tiny_profile, tmp_path / "whole", "training.max_steps=6", world_size=1).complete()
    stop = {"number": signal.SIGTERM, "rank": 1, "step": 3}
    parts = "training.accumulation_steps=2"
    ranks = start(
        tiny_profile, tmp_path / "parts", "training.max_steps=6", world_size=2, signal=stop
    )
    assert ranks.wait() == [75, 75]
    chunks = "method.chunk_size=5"
    run = start(
        tiny_profile, tmp_path / "parts", "training.max_steps=6", parts, chunks, world_size=1
    )
    run.complete()
    assert_close(tmp_path / "parts", tmp_path / "whole")


def test_a_non_finite_sample_on_one_rank_makes_all_skip_the_step(
    tiny_profile: Path, one_rank: Path, tmp_path: Path
) -> None:
    second_batch = (one_rank / "keys" / "rank0.jsonl").read_text().splitlines()[1]
    bad = json.loads(second_batch)["keys"][20]
    start(tiny_profile, tmp_path, world_size=2, bad_samples=[bad]).complete()
    first = min(RunFolder(tmp_path / "run").skipped.read(), key=lambda line: line["step"])
    assert (first["step"], first["rank"], first["keys"]) == (2, 1, [bad])
    assert "global" in first["not_finite"]
    steps = [line for line in decided(tmp_path) if line["split"] == "train"]
    assert [step["skipped_steps"] for step in steps[:3]] == [0, 1, 1]
    assert "total" not in steps[1]
    assert steps[0]["total"] == pytest.approx(decided(one_rank)[0]["total"], rel=1e-3)
    assert len(steps) == STEPS


def kill_and_go_on(profile: Path, folder: Path, *overrides: str, kills: int) -> None:
    """Kill a random one of two ranks at random moments, start again, and let the last one end.

    From when the ranks have met: before, there is nobody to miss one but their launcher.
    """
    chance = random.Random(7)
    starts = folder / "run" / "starts.jsonl"
    for number in range(kills):
        ranks = start(profile, folder, *overrides, world_size=2)
        deadline = time.monotonic() + 120
        while not (starts.exists() and len(starts.read_text().splitlines()) > number):
            assert time.monotonic() < deadline, ranks.said(0)
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 1))
        victim = chance.randrange(2)
        ranks.processes[victim].kill()
        statuses = ranks.wait()
        said = ranks.said(1 - victim)
        assert (statuses[victim], statuses[1 - victim]) == (-9, 75), said
        assert f"rank {victim} (" in said
    start(profile, folder, *overrides, world_size=2).complete()


@pytest.mark.parametrize(
    ("kills", "steps"), [(2, 24), pytest.param(20, 200, marks=pytest.mark.slow)]
)
def test_a_run_whose_ranks_are_killed_ends_with_the_same_weights(
    kills: int, steps: int, tiny_profile: Path, tmp_path: Path
) -> None:
    two_ranks, tmp_path = tmp_path / "uninterrupted", tmp_path / "killed"
    overrides = (
        *(f"training.max_steps={steps}", "training.checkpoint_every_steps=1"),
        "training.validate_every_steps=20",
    )
    start(tiny_profile, two_ranks, *overrides, world_size=2).complete()
    kill_and_go_on(tiny_profile, tmp_path, *overrides, kills=kills)
    assert decided(tmp_path) == decided(two_ranks)
    ours, expected = (
        load_file(folder / "run" / "checkpoints" / "last" / "model.safetensors")
        for folder in (tmp_path, two_ranks)
    )
    assert ours.keys() == expected.keys()
    assert all(ours[name].equal(expected[name]) for name in expected)

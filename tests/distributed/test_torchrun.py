"""Ranks as users start them: torchrun, on a machine without a GPU."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from tests.tiny.run import Command

pytestmark = pytest.mark.xdist_group("ranks")

TORCHRUN = (
    *(sys.executable, "-m", "torch.distributed.run"),
    *("--standalone", "--nproc-per-node", "2"),
)


def rank_process(launcher: int, rank: int) -> psutil.Process:
    children = psutil.Process(launcher).children(recursive=True)
    return next(c for c in children if c.environ().get("RANK") == str(rank))


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_killed_rank_is_named_before_torchrun_ends_the_other(
    victim: int, tiny_profile: Path, command: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    arguments = (
        *("pretrain", tiny_profile, f"run_folder={folder}", "training.max_steps=400"),
        *("training.checkpoint_every_steps=2", "training.rank_timeout_seconds=5"),
    )
    process = command(*arguments, launcher=TORCHRUN)
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + 150
    while not (metrics.exists() and metrics.read_text().count('"train"') > 4):
        assert process.poll() is None, command.complete(process)
        assert time.monotonic() < deadline
        time.sleep(0.01)
    rank_process(process.pid, victim).kill()
    # torchrun leaves with 1 whatever its ranks say.
    said = command.complete(process, status=1)
    assert f"rank {victim} (" in said
    assert "the same command goes on from the last checkpoint" in said
    # The survivor left by itself: torchrun's SIGTERM did not cut it off.
    assert "exitcode  : -15" not in said


def test_what_is_wrong_on_every_rank_is_said_once(
    tiny_profile: Path, command: Command, tmp_path: Path
) -> None:
    words = ("pretrain", tiny_profile, f"run_folder={tmp_path / 'run'}", "seeed=1")
    said = command.complete(command(*words, launcher=TORCHRUN), status=1)
    assert said.count("error: ") == said.count("did you mean 'seed'") == 1

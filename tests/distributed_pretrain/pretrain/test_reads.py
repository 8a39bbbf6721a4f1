"""A start reads its checkpoint once, however often it is asked whether that is sound."""

from __future__ import annotations

from pathlib import Path

import pytest

from distributed_pretrain.__main__ import main
from tests.opened import counting_opens
from tests.tiny import short_run as short

pytestmark = pytest.mark.xdist_group("short_run")

OF_A_CHECKPOINT = {
    "COMPLETE": 1,
    "state.json": 1,
    "model.safetensors": 1,
    "optimizer.safetensors": 1,
    "optimizer.json": 1,
}


def test_a_start_reads_each_file_of_the_newest_checkpoint_once(
    run: Path, tiny_profile: Path
) -> None:
    checkpoints = run / "checkpoints"
    with (
        counting_opens(checkpoints / "step_00000005") as newest,
        counting_opens(checkpoints / "step_00000004") as before,
        short.started(tiny_profile, run) as trainer,
    ):
        assert trainer.state.step == 5
    assert newest == OF_A_CHECKPOINT
    assert before == {}


def test_a_start_that_falls_back_reads_each_checkpoint_once(run: Path, tiny_profile: Path) -> None:
    checkpoints = run / "checkpoints"
    short.rewrite(checkpoints / "step_00000005" / "optimizer.json", lambda _: b"{}")
    with (
        counting_opens(checkpoints / "step_00000005") as newest,
        counting_opens(checkpoints / "step_00000004") as before,
        short.started(tiny_profile, run) as trainer,
    ):
        assert trainer.state.step == 4
    assert newest == before == OF_A_CHECKPOINT


def test_an_evaluation_reads_the_weights_once_and_nothing_of_the_optimizer(run: Path) -> None:
    with counting_opens(run / "checkpoints" / "step_00000005") as opened:
        assert main(["evaluate", str(run), "checkpoint=last", "split=validate"]) == 0
    weights = {name: opened.get(name, 0) for name in OF_A_CHECKPOINT}
    assert weights["model.safetensors"] == 1
    assert weights["optimizer.safetensors"] == weights["optimizer.json"] == 0

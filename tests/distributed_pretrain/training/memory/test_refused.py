"""Torch's error of a full device becomes one line, and exit status 1."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distributed_pretrain.__main__ import main
from distributed_pretrain.training.loop import Trainer
from distributed_pretrain.training.memory.refused import MemoryRefusedError, refusals_told
from distributed_pretrain.training.settings import TrainingConfig

SAID = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.15 GiB of "
    "which 1.21 GiB is free. Including non-PyTorch memory, this process has 77.94 GiB in use."
)


def test_a_full_device_is_one_line(
    tiny_profile: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def step(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError(SAID)

    monkeypatch.setattr(Trainer, "step", step)
    assert main(["pretrain", str(tiny_profile), f"run_folder={tmp_path / 'run'}"]) == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "error: CUDA out of memory. Tried to allocate 2.00 GiB: raise training.accumulation_steps"
    )


def test_what_may_change_before_the_run_goes_on_is_told() -> None:
    plain = TrainingConfig(accumulation="plain", accumulation_steps=2)
    grouped = TrainingConfig(accumulation="plain", accumulation_steps=2, negatives_from=4)
    for training, switch in (
        (TrainingConfig(), ": raise training.accumulation_steps, or take more ranks, and the same"),
        (grouped, ": raise training.accumulation_steps, or take more ranks, and the same"),
        (plain, ": take more ranks (another training.accumulation_steps compares other samples"),
    ):
        with pytest.raises(MemoryRefusedError) as raised, refusals_told(training):
            raise torch.OutOfMemoryError(SAID)
        assert switch in str(raised.value)

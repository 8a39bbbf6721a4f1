"""Checkpoints whose every number is their step."""

from __future__ import annotations

from pathlib import Path

import torch

from distributed_pretrain.run_folder.checkpoint import Checkpoint
from distributed_pretrain.run_folder.intact import TrainingState
from distributed_pretrain.run_folder.newest import NewestCheckpoint


def checkpoint(step: int, *, numbers: int = 3) -> Checkpoint:
    """Every number in it is `step`."""
    weight = torch.full((numbers,), float(step))
    return Checkpoint(
        state=TrainingState(step=step),
        config={"layers": [step]},
        model={"weight": weight, "tied": weight, "half": weight.bfloat16()},
        optimizer={
            "state": {0: {"step": torch.tensor(float(step)), "exp_avg": weight.clone()}},
            "param_groups": [{"betas": (0.9, float(step)), "params": [0]}],
        },
    )


def numbers_in(saved: Checkpoint) -> set[float]:
    """All of them, each once."""
    moments = saved.optimizer["state"][0]
    numbers = {float(saved.state.step), *saved.config["layers"]}
    numbers.add(saved.optimizer["param_groups"][0]["betas"][1])
    for tensor in (*saved.model.values(), *moments.values()):
        numbers.update(tensor.float().unique().tolist())
    return numbers


def newest_of(folder: Path) -> tuple[Path | None, dict[Path, str]]:
    """The newest that is intact, and complaints about newer ones."""
    newest = NewestCheckpoint(folder)
    return newest.folder, newest.damaged

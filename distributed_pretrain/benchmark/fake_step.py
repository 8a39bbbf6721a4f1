"""A whole step of the trainer on a GPU that is not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from data_shards.files.json_lines import JsonLines
from distributed_pretrain.batch import Batch
from distributed_pretrain.benchmark.fake_cuda import HostWaits, fake_cuda, moved
from distributed_pretrain.methods.objective import Objective
from distributed_pretrain.run_folder.intact import TrainingState
from distributed_pretrain.training.engine.ddp import Engine, build_optimizer
from distributed_pretrain.training.engine.loss_scale import LossScale
from distributed_pretrain.training.settings import RunConfig
from distributed_pretrain.training.step import LaunchedStep, Stepper

CUDA = torch.device("cuda")
# Where the trainer waits for the numbers of the step before.
LATE_READ = "training/late_numbers.py:read"


def walk_step(
    config: RunConfig, objective: Objective, batch: Callable[[], Batch], *, steps: int = 1
) -> HostWaits:
    """What `steps` steps of a run wait for and copy: all that the trainer does between batches.

    Forwards, losses, backwards, the update, and in the end the reading of the last step's numbers.
    `batch` is called for a fake one on the GPU; `objective` lies there afterwards.
    """
    engine = Engine(config.training)
    engine.device = CUDA
    seen, state = HostWaits(), TrainingState()
    with fake_cuda():
        with HostWaits():  # of a start, and of a loader
            moved(objective)
            if engine.loss_scale is not None:
                engine.loss_scale = LossScale(CUDA)
            engine.prepare(objective.train(), build_optimizer(config.optimizer, objective))
            batches = [batch() for _ in range(steps)]
        # No step is left out here: nothing is written.
        stepper = Stepper(config, engine, JsonLines(Path("/dev/null")), steps, steps)
        launched: list[LaunchedStep] = []
        with seen:
            for each in batches:
                launched.append(
                    stepper.step(state, each, data_wait_seconds=0.0, interrupted=lambda: False)
                )
            stepper.read(state, launched[-1])
    return seen

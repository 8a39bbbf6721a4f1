"""A device that has no memory left, as the line that a user sees."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from data_shards.errors import RunError
from distributed_pretrain.training.settings import TrainingConfig


class MemoryRefusedError(RunError):
    """The device has no room for what a step needs: what was asked for, and what to set."""


@contextlib.contextmanager
def refusals_told(training: TrainingConfig) -> Iterator[None]:
    """Raise MemoryRefusedError for torch's own error, whose first two sentences it keeps.

    Told is what the run may change between two starts: where a micro-batch is what is compared,
    its size is not.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        asked = ". ".join(str(error).split(". ")[:2])
        switch = (
            "take more ranks (another training.accumulation_steps compares other samples: that is "
            "another run_folder)"
        )
        if "accumulation_steps" not in training.deciding():
            switch = "raise training.accumulation_steps, or take more ranks"
        raise MemoryRefusedError(
            f"{asked}: {switch}, and the same command goes on from the last checkpoint (`python "
            "-m distributed_pretrain memory PROFILE.yaml` says what takes how much)"
        ) from error

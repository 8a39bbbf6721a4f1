"""A device that has no memory left, as the line that a user sees."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from data_shards.errors import RunError


class MemoryRefusedError(RunError):
    """The device has no room for what a step needs: what was asked for, and what to set."""


@contextlib.contextmanager
def refusals_told() -> Iterator[None]:
    """Raise MemoryRefusedError for torch's own error, whose first two sentences it keeps."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        asked = ". ".join(str(error).split(". ")[:2])
        raise MemoryRefusedError(
            f"{asked}: raise training.accumulation_steps, and the same command goes on from the "
            "last checkpoint (`python -m distributed_pretrain memory PROFILE.yaml` says what takes "
            "how much)"
        ) from error

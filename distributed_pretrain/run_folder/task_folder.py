"""What lies in the folder of a downstream task, which is one of runs, and of its single runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from data_shards.files.lock import locked
from distributed_pretrain.run_folder.folder import RunFolder


class TaskFolder(RunFolder):
    """A folder of a run for each learning rate that is tried, and for each seed.

    `task` holds what is known so far, and `features` those of a frozen encoder while a start goes
    on: a single run has these too.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.task = path / "task.json"
        self.features = path / "features"

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Write in the folder when no other start does: those who share it take turns."""
        busy = f"{self.path}: {{holder}} writes there: waiting"
        with locked(self._lock_path, busy=busy, wait=True, patience_seconds=10):
            yield

    def part(self, kind: Literal["learning_rates", "seeds"], value: float) -> RunFolder:
        """The run that tries a learning rate, or that of a seed: every digit of it is the name."""
        return RunFolder(self.path / kind / str(value))

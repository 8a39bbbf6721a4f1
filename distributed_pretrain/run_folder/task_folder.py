"""What lies in the folder of a downstream task, which is one of runs, and of its single runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from data_shards.files.lock import locked
from distributed_pretrain.run_folder.folder import LOCK, LOCK_PATIENCE_SECONDS, RunFolder

Kind = Literal["learning_rates", "seeds"]


class TaskFolder(RunFolder):
    """A folder of a run for each learning rate that is tried, and for each seed.

    `task` holds what is known so far. Several starts may work in it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.task = path / "task.json"

    def part(self, kind: Kind, value: float) -> RunFolder:
        """The run that tries a learning rate, or that of a seed: every digit of it is the name."""
        return RunFolder(self.path / kind / str(value))

    @contextmanager
    def in_hand(self, part: RunFolder) -> Iterator[None]:
        """Have a run for this start alone, from its first step until its figures are kept.

        Raises InUseError at once where another start has it.
        """
        # Training locks the run's own folder.
        place = self.path / "in_hand" / part.path.relative_to(self.path)
        busy = f"{part.path}: in the hands of {{holder}}"
        try:
            with locked(place / LOCK, busy=busy):
                yield
        finally:
            for folder in (place, place.parent, place.parent.parent):
                with suppress(OSError):
                    folder.rmdir()


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Write in a folder that several starts share, when none of the others does."""
    busy = f"{folder}: {{holder}} writes there: waiting"
    with locked(folder / LOCK, busy=busy, wait=True, patience_seconds=LOCK_PATIENCE_SECONDS):
        yield

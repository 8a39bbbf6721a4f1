"""What lies in a run's folder, by which names, and whose it is: the one place that knows.

Nothing here needs torch: launchers and tables look into run folders too.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from data_shards.errors import InputError
from data_shards.files.atomic import write_text_atomically
from data_shards.files.json_lines import JsonLines, Line, read_lines
from data_shards.files.lock import locked
from data_shards.profiles import Config, dump_profile, first_difference, load_profile

LOCK_PATIENCE_SECONDS = 10.0
MARKER = "COMPLETE"

ConfigT = TypeVar("ConfigT", bound=Config)


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"  # the resolved one
        self.metrics = path / "metrics.jsonl"  # a line a step or evaluation
        self.tensorboard = path / "tensorboard"
        self.checkpoints = (
            path / "checkpoints"
        )  # `step_...` folders and the links `last` and `best`
        self.tokenizer = path / "tokenizer"
        # A line a sample that could not be read; a line a batch and rank that was left out for a
        # non-finite loss or gradient; a line a start: when, where, from which step.
        self.quarantine = JsonLines(path / "quarantine.jsonl")
        self.skipped = JsonLines(path / "skipped.jsonl")
        self.starts = JsonLines(path / "starts.jsonl")

    def checkpoint(self, name: str) -> Path:
        """A checkpoint by the name of its folder or link. Raises InputError when there is none."""
        folder = self.checkpoints / name
        if not folder.is_dir():
            raise InputError(f"{folder}: no such checkpoint: use best, last or a step folder")
        return folder

    def evaluation(self, split: str, checkpoint: str) -> Path:
        """The figures of a checkpoint on a split."""
        return self.path / f"evaluation_{split}_{checkpoint}.json"

    @property
    def has_progress(self) -> bool:
        """Whether a step was ever recorded; a folder without is prepared anew."""
        return self.metrics.exists() or self.checkpoints.exists()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the folder for this process, and its ranks, alone.

        A job that was just killed may still hold it: waits a little, then raises InputError that
        names the holder. The lock goes with its process, whatever ends that.
        """
        busy = "in use by {holder}: wait for it to end, or choose another run_folder"
        lock = self.path / "lock"
        try:
            with locked(lock, busy=f"{self.path}: {busy}", patience_seconds=LOCK_PATIENCE_SECONDS):
                yield
        finally:
            if not self.has_progress:
                with contextlib.suppress(OSError):
                    self.path.rmdir()

    def refuse_other(self, config: Config) -> None:
        """Raise InputError, naming the first field that differs, for a run of another config."""
        if not self.has_progress:
            return
        own = self.read_config(type(config))
        if difference := first_difference(own.deciding(), config.deciding()):
            raise InputError(
                f"{self.path} holds a run of another config: {difference}: "
                "choose another run_folder, or delete this one"
            )

    def prepare(self, config: Config) -> None:
        """Create the folder with `config`, or check that it holds a run of the same config.

        Raises InputError naming the first field that differs.
        """
        self.refuse_other(config)
        if not self.has_progress:
            self.path.mkdir(parents=True, exist_ok=True)
            write_text_atomically(self.config, dump_profile(config))

    def read_config(self, kind: type[ConfigT]) -> ConfigT:
        """The config of the run. Raises InputError when there is none or it does not fit."""
        self.refuse_missing()
        return load_profile(kind, self.config)

    def refuse_missing(self) -> None:
        """Raise InputError where there is no run."""
        if not self.config.is_file():
            raise InputError(f"{self.config}: missing, so {self.path} is not a run folder")

    def discard(self) -> None:
        """Remove what a start left that was refused before its first step."""
        if not self.has_progress:
            self.config.unlink(missing_ok=True)
            shutil.rmtree(self.tokenizer, ignore_errors=True)

    def read_metrics(self, *, last_bytes: int | None = None) -> list[Line]:
        """The lines of `metrics.jsonl`, oldest first; those at its end, of so many bytes."""
        return read_lines(self.metrics, last_bytes=last_bytes)

    def note_start(self, **numbers: object) -> int:
        """Add a line to `starts.jsonl`; how often the run has been started before."""
        earlier = len(self.starts.read())
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.starts.append({"time": now, "host": socket.gethostname(), **numbers})
        return earlier


def step_folder(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return checkpoints / f"step_{step:08d}"


def step_folders(checkpoints: Path) -> list[Path]:
    """The checkpoints by step, oldest first, intact or not."""
    return sorted(checkpoints.glob("step_" + "[0-9]" * 8))


def step_of(folder: Path) -> int:
    """The step that a checkpoint's folder is called by."""
    return int(folder.name.removeprefix("step_"))

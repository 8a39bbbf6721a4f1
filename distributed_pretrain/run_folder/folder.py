"""What lies in a run's folder, by which names, whose it is, and how far: the one place that knows.

Nothing here needs torch: launchers and tables look into run folders too.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from data_shards.errors import InputError
from data_shards.files.atomic import write_text_atomically
from data_shards.files.json_lines import JsonLines, Line, read_lines
from data_shards.files.lock import locked
from data_shards.profiles import Config, dump_profile, first_difference, load_profile

# Links among the checkpoints; what stands for the weights that a run began with, beside them.
LAST, BEST, UNTRAINED = "last", "best", "untrained"
LOCK_PATIENCE_SECONDS = 10.0
MARKER = "COMPLETE"
TAIL_BYTES = 200_000
_TIMING_SUFFIXES = ("_per_second", "_seconds")
_TIMING_NAMES = frozenset({"memory_bytes", "data_wait_share", "mfu"})

ConfigT = TypeVar("ConfigT", bound=Config)


@dataclass(frozen=True)
class RunProgress:
    """The newest step with its loss, the rate of late, and the seconds left at that rate.

    `written` is when, in seconds since 1970: an earlier job may have done it.
    """

    step: int
    total_steps: int | None
    loss: float | None
    pairs_per_second: float | None
    seconds_left: float | None
    written: float


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"  # the resolved one
        self.metrics = path / "metrics.jsonl"  # a line a step or evaluation
        self.tensorboard = path / "tensorboard"
        self.checkpoints = path / "checkpoints"  # steps, and links
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
            raise InputError(
                f"{folder}: no such checkpoint: use {BEST}, {LAST}, a step folder or {UNTRAINED}"
            )
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
        """Create the folder with `config`, or refuse it as `refuse_other` does."""
        self.refuse_other(config)
        if not self.has_progress:
            self.path.mkdir(parents=True, exist_ok=True)
            write_text_atomically(self.config, dump_profile(config))

    def read_config(self, kind: type[ConfigT]) -> ConfigT:
        """The config of the run. Raises InputError when there is none or it does not fit."""
        self.refuse_missing()
        return load_profile(kind, self.config)

    def refuse_missing(self, *, checkpoint: str = UNTRAINED) -> None:
        """Raise InputError where there is no run, or not this checkpoint of it."""
        if not self.config.is_file():
            raise InputError(f"{self.config}: missing, so {self.path} is not a run folder")
        if checkpoint != UNTRAINED:
            self.checkpoint(checkpoint)

    def discard(self) -> None:
        """Remove what a start left that was refused before its first step."""
        if not self.has_progress:
            self.config.unlink(missing_ok=True)
            shutil.rmtree(self.tokenizer, ignore_errors=True)

    def read_metrics(self, *, last_bytes: int | None = None) -> list[Line]:
        """The lines of `metrics.jsonl`, oldest first; those at its end, of so many bytes."""
        return read_lines(self.metrics, last_bytes=last_bytes)

    def progress(self) -> RunProgress | None:
        """How far the run is; None where nothing has been trained yet."""
        tail = self.read_metrics(last_bytes=TAIL_BYTES)
        lines = [line for line in tail if line["split"] == "train"]
        if not lines:
            return None
        newest, recent = lines[-1], lines[-20:]
        starts = self.starts.read()
        total = starts[-1].get("total_steps") if starts else None
        seconds = [line["step_seconds"] for line in recent if "step_seconds" in line]
        rates = [line["pairs_per_second"] for line in recent if "pairs_per_second" in line]
        left = statistics.median(seconds) * (total - newest["step"]) if seconds and total else None
        return RunProgress(
            step=newest["step"],
            total_steps=total,
            loss=newest.get("total"),
            pairs_per_second=statistics.median(rates) if rates else None,
            seconds_left=left,
            written=self.metrics.stat().st_mtime,
        )

    def saved_step(self) -> int:
        """The step of the newest complete checkpoint, by its marker alone; 0 without one."""
        complete = [each for each in step_folders(self.checkpoints) if (each / MARKER).exists()]
        return step_of(complete[-1]) if complete else 0

    def best_validation(self) -> dict[str, float]:
        """What validation measured at the best checkpoint, without timings; empty before."""
        best = self.checkpoints / BEST
        at = ("validate", step_of(best.resolve()) if best.exists() else None)
        lines = [each for each in self.read_metrics() if (each["split"], each["step"]) == at]
        figures = lines[-1] if lines else {}
        return {
            name: each for name, each in figures.items() if name != "split" and not is_timing(name)
        }

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


def is_timing(name: str) -> bool:
    """Whether a metric may differ between two otherwise identical runs."""
    return name in _TIMING_NAMES or name.endswith(_TIMING_SUFFIXES)

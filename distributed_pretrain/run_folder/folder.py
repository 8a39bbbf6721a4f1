"""What lies in a run's folder, by which names, whose it is, and how far: the one place that knows.

Nothing here needs torch: launchers and tables look into run folders too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from data_shards.errors import InputError, warn
from data_shards.files.atomic import remove, write_text_atomically
from data_shards.files.json_lines import JsonLines, Line, read_lines
from data_shards.files.lock import Lock, locked
from data_shards.files.regular import read_regular, refuse_what_is_no_file
from data_shards.profiles import Config, dump_profile, first_difference, load_profile
from data_shards.records.manifest import MANIFEST_NAME
from distributed_pretrain.run_folder.intact import Owner, read_saved, sealed_states
from distributed_pretrain.run_folder.metrics import is_count, is_later, is_metrics_line, is_timing
from distributed_pretrain.run_folder.step_folders import (
    BEST,
    LAST,
    UNTRAINED,
    is_step_name,
    named_by,
    newest_complete_step,
    refuse_stray,
    step_folders,
    step_of,
)

LOCK = "lock"
LOCK_PATIENCE_SECONDS = 10.0
TAIL_BYTES = 200_000
_LONGEST_SECONDS = 1e9
_MAY_NOT_WRITE = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})

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
    """The files of one run. Raises InputError for a path that no system takes."""

    def __init__(self, path: Path) -> None:
        if "\0" in str(path):
            raise InputError(f"run_folder={str(path)!r}: a path holds no zero byte: leave it out")
        self.path = path
        self.config = path / "config.yaml"  # the resolved one
        self.identity = path / "identity.json"  # which run it is: see `identity`
        self.metrics = path / "metrics.jsonl"  # a line a step or evaluation
        self.tensorboard = path / "tensorboard"
        self.checkpoints = path / "checkpoints"  # steps, and links
        self.tokenizer = path / "tokenizer"
        # A line a sample that could not be read; a line a batch and rank that was left out for a
        # non-finite loss or gradient; a line a start: when, where, from which step.
        self.quarantine = JsonLines(path / "quarantine.jsonl", _names_a_sample)
        self.skipped = JsonLines(path / "skipped.jsonl", _names_a_batch)
        self.starts = JsonLines(path / "starts.jsonl")
        self._lock: Lock | None = None

    def checkpoint(self, name: str) -> Path:
        """A checkpoint by the name of its folder or link. Raises InputError when there is none."""
        name = self.checkpoint_name(name)
        folder = self.checkpoints / name
        if name in (BEST, LAST):
            refuse_stray(folder)
            folder = named_by(folder) or folder
        if not folder.is_dir():
            raise InputError(
                f"{folder}: no such checkpoint: use {BEST}, {LAST}, a step folder or {UNTRAINED}"
            )
        return folder

    def checkpoint_name(self, said: str) -> str:
        """A checkpoint's name, also where its path was given, or a shell added a slash to it.

        Raises InputError for all that is none of this run.
        """
        path = Path(said)
        known = path.name in (BEST, LAST, UNTRAINED) or is_step_name(path.name)
        beside = (self.checkpoints / path).parent.resolve() == self.checkpoints.resolve()
        # A path is relative to the checkpoints, or to where the command was given.
        if not known or not (beside or path.parent.resolve() == self.checkpoints.resolve()):
            raise InputError(
                f"checkpoint={said}: no checkpoint of {self.path} is called so: use {BEST}, "
                f"{LAST}, a step folder's name or {UNTRAINED}"
            )
        return path.name

    def evaluation(self, split: str, checkpoint: str) -> Path:
        """The figures of a checkpoint on a split."""
        return self.path / f"evaluation_{split}_{checkpoint}.json"

    def examples(self, split: str) -> Path:
        """The picture of a split's best, median and worst image."""
        return self.path / f"examples_{split}.png"

    @property
    def has_progress(self) -> bool:
        """Whether a step was ever recorded; a folder without is prepared anew."""
        return os.path.lexists(self.metrics) or os.path.lexists(self.checkpoints)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the folder for this process, and its ranks, alone.

        A job that was just killed may still hold it: waits a little, then raises InUseError that
        names the holder. The lock goes with its process, whatever ends that.
        """
        busy = (
            f"{self.path}: in use by {{holder}}: wait for it to end, or choose another run_folder"
        )
        with contextlib.ExitStack() as held:
            held.callback(self._remove_if_nothing_came_of_it)
            try:
                lock = locked(self.path / LOCK, busy=busy, patience_seconds=LOCK_PATIENCE_SECONDS)
                self._lock = held.enter_context(lock)
            except OSError as error:
                # Of a finished run nothing is to be written.
                if error.errno not in _MAY_NOT_WRITE or not self._is_finished():
                    raise
            try:
                yield
            finally:
                self._lock = None

    def _remove_if_nothing_came_of_it(self) -> None:
        if not self.has_progress:
            with contextlib.suppress(OSError):
                self.path.rmdir()

    def _is_finished(self) -> bool:
        folders = step_folders(self.checkpoints)
        return bool(folders) and read_saved(folders[-1]).state.finished

    def check_lock(self) -> None:
        """Raise InputError where the folder is not there any more, or is another process's."""
        if self._lock is not None:
            self._lock.check()

    def refuse_other(self, config: Config) -> None:
        """Raise InputError, naming the first field that differs, for a run of another config.

        And for a folder of shards. Where the config is lost, the checkpoints' own are left.
        """
        if (self.path / MANIFEST_NAME).exists():
            raise InputError(f"{self.path}: holds shards: choose another run_folder")
        if not self.has_progress or not os.path.lexists(self.config):
            return
        own = self.read_config(type(config))
        if difference := first_difference(own.deciding(), config.deciding()):
            states = list(sealed_states(self.checkpoints))
            if states and all(Owner(config).complaint(each) is None for each in states):
                raise InputError(
                    f"{self.config}: is of another run than all {len(states)} checkpoints beside "
                    f"it, which are of the config that is asked for: {difference}: delete it, and "
                    "it is written again"
                )
            raise InputError(
                f"{self.path} holds a run of another config: {difference}: "
                "choose another run_folder, or delete this one"
            )

    def prepare(self, config: Config) -> None:
        """Create the folder with `config`, or refuse it as `refuse_other` does."""
        self.refuse_other(config)
        if self.has_progress and os.path.lexists(self.config):
            return
        if self.has_progress:
            warn(f"{self.config}: was missing, and is written again")
        self.path.mkdir(parents=True, exist_ok=True)
        write_text_atomically(self.config, dump_profile(config))

    def read_config(self, kind: type[ConfigT]) -> ConfigT:
        """The config of the run. Raises InputError when there is none or it does not fit."""
        self.refuse_missing()
        remedy = "delete it, and the `pretrain` or `downstream` that made the run writes it again"
        if not read_regular(self.config).strip():
            raise InputError(f"{self.config}: empty, as a power cut leaves a file: {remedy}")
        try:
            return load_profile(kind, self.config)
        except InputError as error:
            raise InputError(f"{error} (if it is damaged: {remedy})") from error

    def refuse_missing(self, *, checkpoint: str = UNTRAINED) -> None:
        """Raise InputError where there is no run, or not this checkpoint of it."""
        refuse_what_is_no_file(self.config)
        if not self.config.exists():
            raise InputError(f"{self.config}: missing, so {self.path} is not a run folder")
        if self.checkpoint_name(checkpoint) != UNTRAINED:
            self.checkpoint(checkpoint)

    def discard(self) -> None:
        """Remove what a start left that was refused before its first step."""
        if not self.has_progress:
            for each in (self.config, self.identity, self.tokenizer):
                remove(each)

    def read_metrics(self) -> list[Line]:
        """The lines of `metrics.jsonl`, oldest first.

        Raises InputError for a damaged one, and where they repeat or go back.
        """
        return read_lines(self.metrics, is_metrics_line, follows=is_later)

    def progress(self) -> RunProgress | None:
        """How far the run is, by the last lines that can be read; None where none was written.

        Raises InputError where none of them can be read, or steps go back.
        """
        read_tail = partial(
            read_lines, self.metrics, is_metrics_line, follows=is_later, last_bytes=TAIL_BYTES
        )
        tail = read_tail(skip_bad=True) or read_tail()
        starts = read_lines(self.starts.path, skip_bad=True)
        lines = [line for line in tail if line["split"] == "train"]
        if not lines:
            return None
        newest, recent = lines[-1], lines[-20:]
        total = starts[-1].get("total_steps") if starts else None
        if not is_count(total):
            total = None
        seconds = [line["step_seconds"] for line in recent if "step_seconds" in line]
        rates = [line["pairs_per_second"] for line in recent if "pairs_per_second" in line]
        left = statistics.median(seconds) * (total - newest["step"]) if seconds and total else None
        return RunProgress(
            step=newest["step"],
            total_steps=total,
            loss=newest.get("total"),
            pairs_per_second=statistics.median(rates) if rates else None,
            seconds_left=left if left is not None and abs(left) < _LONGEST_SECONDS else None,
            written=self.metrics.stat().st_mtime,
        )

    def saved_step(self) -> int:
        """`newest_complete_step` of the run; of a folder of runs the sum over them."""
        return sum(map(newest_complete_step, self.path.glob(f"**/{self.checkpoints.name}")))

    def learnt_from(self) -> str | None:
        """The sha256 of the manifest of the run's shards, by its newest checkpoint that says so."""
        for folder in reversed(step_folders(self.checkpoints)):
            with contextlib.suppress(InputError):
                return read_saved(folder).state.manifest_sha256
        return None

    def best_validation(self) -> dict[str, float]:
        """What validation measured at the best checkpoint, without timings; empty before."""
        refuse_stray(self.checkpoints / BEST)
        best = named_by(self.checkpoints / BEST)
        at = ("validate", step_of(best) if best is not None else None)
        lines = [each for each in self.read_metrics() if (each["split"], each["step"]) == at]
        figures = lines[-1] if lines else {}
        return {
            name: each for name, each in figures.items() if name != "split" and not is_timing(name)
        }

    def note_start(self, **numbers: object) -> int:
        """Add a line to `starts.jsonl`; how often the run has been started before."""
        # A file that was copied into itself has each of them twice.
        earlier = len({str(line) for line in read_lines(self.starts.path, skip_bad=True)})
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.starts.append({"time": now, "host": socket.gethostname(), **numbers})
        return earlier


def _names_a_sample(line: Line) -> bool:
    return isinstance(line.get("key"), str) and isinstance(line.get("split"), str)


def _names_a_batch(line: Line) -> bool:
    return is_count(line.get("samples_consumed"))

"""A run's folder: its config, and the checkpoint that the same command goes on from."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from data_shards.errors import InputError
from data_shards.profiles import dump_profile, load_profile
from data_shards.records.manifest import write_text_atomically
from distributed_pretrain.data.quarantine import Quarantine
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.run_folder.checkpoint import (
    drop_checkpoints_after,
    find_latest_intact,
    first_difference,
    point_link,
    step_folder,
    step_of,
)

LOCK_PATIENCE_SECONDS = 10.0
# Fields that change neither the weights nor the metrics: a run may go on with others.
_FREE_FIELDS = (
    ("run_folder",),
    ("data", "shards"),
    ("data", "decode_threads"),
    ("data", "prefetch_batches"),
    ("training", "log_interval_seconds"),
    ("training", "keep_checkpoints"),
    ("training", "pictures"),
    ("training", "distributed"),
    ("training", "rank_timeout_seconds"),
    ("training", "collective_timeout_seconds"),
    ("training", "peak_teraflops"),
)


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run (see DESIGN, "A run folder holds")."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON line a step or evaluation."""
        return self.path / "metrics.jsonl"

    @property
    def quarantine(self) -> Path:
        """One JSON line a sample that could not be read."""
        return self.path / "quarantine.jsonl"

    @property
    def skipped(self) -> Path:
        """One JSON line a batch and rank that was left out for a non-finite loss or gradient."""
        return self.path / "skipped.jsonl"

    @property
    def starts(self) -> Path:
        """One JSON line a start: when, where, from which step, with how many ranks."""
        return self.path / "starts.jsonl"

    @property
    def tensorboard(self) -> Path:
        """Event files."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """`step_...` folders and the links `last` and `best`."""
        return self.path / "checkpoints"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's files."""
        return self.path / "tokenizer"

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
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("a+") as file:
            deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
            while not _is_lock_taken(file):
                if time.monotonic() > deadline:
                    file.seek(0)
                    raise InputError(
                        f"{self.path}: in use by {file.read().strip() or 'another job'}: wait for "
                        "it to end, or choose another run_folder"
                    )
                time.sleep(0.2)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            try:
                yield
            finally:
                if not self.has_progress:
                    Path(file.name).unlink(missing_ok=True)
                    with contextlib.suppress(OSError):
                        self.path.rmdir()

    def refuse_other(self, config: PretrainConfig) -> None:
        """Raise InputError, naming the first field that differs, for a run of another config."""
        if not self.has_progress:
            return
        difference = first_difference(_deciding(self.read_config()), _deciding(config))
        if difference:
            raise InputError(
                f"{self.path} holds a run of another config: {difference}: "
                "choose another run_folder, or delete this one"
            )

    def prepare(self, config: PretrainConfig) -> None:
        """Create the folder with `config`, or check that it holds a run of the same config.

        Raises InputError naming the first field that differs.
        """
        self.refuse_other(config)
        if self.has_progress:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        write_text_atomically(self.config, dump_profile(config))

    def read_config(self) -> PretrainConfig:
        """The config of the run. Raises InputError when there is none or it does not fit."""
        if not self.config.is_file():
            raise InputError(f"{self.config}: missing, so {self.path} is not a run folder")
        return load_profile(PretrainConfig, self.config)

    def discard(self) -> None:
        """Remove what a start left that was refused before its first step."""
        if not self.has_progress:
            self.config.unlink(missing_ok=True)
            shutil.rmtree(self.tokenizer, ignore_errors=True)

    def set_damaged_checkpoints_aside(self) -> None:
        """Rename damaged checkpoints newer than the newest intact one, naming each on stderr."""
        intact, damaged = find_latest_intact(self.checkpoints)
        for folder, complaint in damaged.items():
            instead = intact.name if intact else "the beginning"
            print(f"warning: {complaint}; going on from {instead}", file=sys.stderr)
            aside = folder.with_suffix(".damaged")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
            if intact is not None:
                point_link(self.checkpoints / "last", intact)

    def latest_step(self, *, until_step: int | None = None) -> int | None:
        """The step of the newest intact checkpoint, of at most `until_step` steps."""
        folder, _ = find_latest_intact(self.checkpoints, until_step=until_step)
        return None if folder is None else step_of(folder)

    def checkpoint_at(self, step: int) -> Path:
        """Where the checkpoint of a step is."""
        return step_folder(self.checkpoints, step)

    def drop_checkpoints_after(self, step: int) -> None:
        """Delete the checkpoints of a future that was abandoned."""
        drop_checkpoints_after(self.checkpoints, step)

    def note_start(self, *, step: int, total_steps: int, world_size: int, device: str) -> int:
        """Add a line to `starts.jsonl`; how often the run has been started before."""
        earlier = len(self.starts.read_text().splitlines()) if self.starts.exists() else 0
        line = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "host": socket.gethostname(),
            "step": step,
            "total_steps": total_steps,
            "world_size": world_size,
            "device": device,
        }
        with self.starts.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        return earlier

    def quarantine_of(self, split: ShardSplit, max_bad_fraction: float) -> Quarantine:
        """The record of a split's unreadable samples."""
        return Quarantine(
            self.quarantine,
            split=split.split,
            samples=len(split),
            max_bad_fraction=max_bad_fraction,
        )


def _is_lock_taken(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _deciding(config: PretrainConfig) -> dict[str, Any]:
    values = config.model_dump(mode="json")
    # Fields of the method that only bound its memory.
    values["method"].pop("contrastive_chunk_size", None)
    if config.training.accumulation == "exact":
        del values["training"]["accumulation_steps"]
    for *sections, name in _FREE_FIELDS:
        part = values
        for section in sections:
            part = part[section]
        del part[name]
    return values

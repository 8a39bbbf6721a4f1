"""A run's folder: its config, and the checkpoint that the same command goes on from."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data_shards.profiles import dump_profile
from data_shards.records.errors import InputError
from data_shards.records.manifest import write_text_atomically
from distributed_pretrain.checkpoint import find_latest_intact, first_difference
from distributed_pretrain.config import PretrainConfig
from distributed_pretrain.data.quarantine import Quarantine
from distributed_pretrain.data.shards import ShardSplit

# Fields that change neither the weights nor the metrics: a run may go on with others.
_FREE_FIELDS = (
    ("run_folder",),
    ("data", "shards"),
    ("data", "decode_threads"),
    ("data", "prefetch_batches"),
    ("training", "log_interval_seconds"),
    ("training", "keep_checkpoints"),
    ("training", "pictures"),
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

    def prepare(self, config: PretrainConfig) -> None:
        """Create the folder with `config`, or check that it holds a run of the same config.

        Raises InputError naming the first field that differs.
        """
        if self.config.exists():
            old = _deciding(PretrainConfig.model_validate(yaml.safe_load(self.config.read_text())))
            difference = first_difference(old, _deciding(config))
            if difference:
                raise InputError(
                    f"{self.path} holds a run of another config: {difference}: "
                    "choose another run_folder, or delete this one"
                )
            return
        self.path.mkdir(parents=True, exist_ok=True)
        write_text_atomically(self.config, dump_profile(config))

    def set_damaged_checkpoints_aside(self) -> None:
        """Rename damaged checkpoints newer than the newest intact one, naming each on stderr."""
        intact, damaged = find_latest_intact(self.checkpoints)
        for folder, complaint in damaged.items():
            instead = intact.name if intact else "the beginning"
            print(f"warning: {complaint}; going on from {instead}", file=sys.stderr)
            aside = folder.with_suffix(".damaged")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)

    def latest_checkpoint(self) -> Path | None:
        """The newest intact checkpoint."""
        return find_latest_intact(self.checkpoints)[0]

    def quarantine_of(self, split: ShardSplit, max_bad_fraction: float) -> Quarantine:
        """The record of a split's unreadable samples."""
        return Quarantine(
            self.quarantine,
            split=split.split,
            samples=len(split),
            max_bad_fraction=max_bad_fraction,
        )


def _deciding(config: PretrainConfig) -> dict[str, Any]:
    values = config.model_dump(mode="json")
    for *sections, name in _FREE_FIELDS:
        part = values
        for section in sections:
            part = part[section]
        del part[name]
    return values

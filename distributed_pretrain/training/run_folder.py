"""A run's folder: its config, and the checkpoint that the same command goes on from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from data_shards.profiles import dump_profile
from data_shards.records.errors import InputError
from data_shards.records.manifest import write_json_atomically
from distributed_pretrain.checkpoint import find_latest_intact, first_difference
from distributed_pretrain.config import PretrainConfig

# Fields that change neither the weights nor the metrics.
_FREE = {
    "run_folder": ...,
    "data": ("shards", "decode_threads", "prefetch_batches"),
    "training": ("log_interval_seconds", "keep_checkpoints", "pictures"),
}


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
        write_json_atomically(self.config, dump_profile(config))

    def latest_checkpoint(self) -> tuple[Path | None, list[str]]:
        """The newest intact checkpoint and complaints about damaged newer ones."""
        return find_latest_intact(self.checkpoints)


def _deciding(config: PretrainConfig) -> dict[str, object]:
    values: dict[str, object] = config.model_dump(mode="json")
    for section, names in _FREE.items():
        if names is ...:
            values.pop(section)
        else:
            part = values[section]
            assert isinstance(part, dict)
            for name in names:
                part.pop(name, None)
    return values

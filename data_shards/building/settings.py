"""The profile of a shard build: one source, one output folder, and how images are stored."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from data_shards.building.split_file import SplitFile
from data_shards.errors import MISSING_IMAGE, InputError
from data_shards.phantom.settings import PhantomConfig, source_of_phantom
from data_shards.processes import available_cores
from data_shards.profiles import Config
from data_shards.records.study import Split
from data_shards.sources.catalog import AnySourceConfig


class SplitSizes(Config):
    """How many studies validation and test hold; the others are for training."""

    validate_studies: int = Field(ge=0)
    test_studies: int = Field(ge=0)

    @property
    def by_split(self) -> dict[Split, int]:
        """Both sizes."""
        return {"validate": self.validate_studies, "test": self.test_studies}


class ShardsConfig(Config):
    """What `python -m data_shards build | verify | preview PROFILE.yaml` reads.

    With `phantom`, an archive is drawn first, if it is not there; the importer of its layout finds
    it without being told where. Everything but `output`, `workers` and `part` decides the bytes of
    the shards. The two fractions apply to patients whose source gives no split; so do
    `split_sizes`, in their place, of which each gets its share of the patients with each label of
    `stratify_by`. Lists in `split_file` take the place of all these. `bad_images`: stop at the
    first image that cannot be read, or leave such images out and count them in the manifest;
    `missing_images`: so for files that are not there, as `bad_images` unless it is said. `hash_ids`
    is a file with a key: ids of patients, studies and images are stored as keyed hashes. `part`:
    with `3/16`, build the third of 16 parts of the shards, beside the others and into one folder.
    """

    phantom: PhantomConfig | None = None
    source: AnySourceConfig
    output: Path
    seed: int = 0
    longest_side_px: int = Field(default=320, ge=16)
    jpeg_quality: int = Field(default=95, ge=1, le=100)
    samples_per_shard: int = Field(default=512, ge=1)
    validate_fraction: float = Field(default=0.1, ge=0.0, lt=1.0)
    test_fraction: float = Field(default=0.1, ge=0.0, lt=1.0)
    split_sizes: SplitSizes | None = None
    split_file: SplitFile | None = None
    stratify_by: tuple[str, ...] = ()
    bad_images: Literal["stop", "drop"] = "stop"
    missing_images: Literal["stop", "drop"] | None = None
    hash_ids: Path | None = None
    workers: int | None = Field(default=None, ge=1)
    part: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_the_phantom(cls, values: Any) -> Any:
        return source_of_phantom(values) if isinstance(values, dict) else values

    @field_validator("part", mode="before")
    @classmethod
    def _count_parts_from_one(cls, value: Any) -> str | None:
        if value is None:
            return None
        written = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", str(value))
        if written is None or not 1 <= int(written[1]) <= int(written[2]):
            raise ValueError("write i/n with 1 <= i <= n, such as part=3/16")
        return f"{int(written[1])}/{int(written[2])}"

    @model_validator(mode="after")
    def _leave_patients_for_training(self) -> ShardsConfig:
        if self.validate_fraction + self.test_fraction >= 1.0:
            raise ValueError(
                f"validate_fraction={self.validate_fraction} and test_fraction="
                f"{self.test_fraction} leave no patient for training: make their sum less than 1"
            )
        if self.split_file is not None and self.split_sizes is not None:
            raise ValueError("split_file says all splits: leave split_sizes out")
        if self.stratify_by and self.split_sizes is None:
            raise ValueError("stratify_by needs split_sizes: fractions draw patients one by one")
        return self

    def drops(self, reason: str) -> bool:
        """Whether an image that is refused for this reason is left out, or stops the build."""
        missing = self.missing_images if reason == MISSING_IMAGE else None
        return (missing or self.bad_images) == "drop"

    @property
    def source_name(self) -> str:
        """Whose the studies are: what was drawn is the phantom's, whoever reads it."""
        return self.source.name if self.phantom is None else "phantom"

    @property
    def worker_count(self) -> int:
        """`workers`, or every core this process may use."""
        return self.workers or available_cores()


def refuse_what_cannot_start(config: ShardsConfig, folder: Path, ranks: int) -> None:
    """Raise InputError for what would end a build in its first minute: sources that are not there.

    What the phantom draws comes into being only then.
    """
    del folder, ranks
    if config.phantom is None:
        _refuse_missing(config.source, where="source")
    if config.split_file is not None:
        _refuse_missing(config.split_file, where="split_file")


def _refuse_missing(config: Config, *, where: str) -> None:
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, Config):
            _refuse_missing(value, where=f"{where}.{name}")
        elif isinstance(value, Path) and not value.exists():
            raise InputError(
                f"{where}.{name}={value}: no such file or folder: check {where}.{name}"
            )

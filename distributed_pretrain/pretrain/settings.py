"""The whole of a pre-training run, and of an evaluation, as one typed config."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, PositiveInt, model_validator

from data_shards.errors import InputError
from data_shards.profiles import Config
from data_shards.records.study import Split
from distributed_pretrain.data.order import check_world_size
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.methods.catalog import MethodConfig
from distributed_pretrain.training.settings import OptimizerConfig, ScheduleConfig, TrainingConfig


class PretrainConfig(Config):
    """One pre-training run; saved in its run folder and in every checkpoint."""

    run_folder: Path
    seed: int = Field(12345, ge=0)
    data: DataConfig
    vocabulary_size: PositiveInt = Field(
        2048, description="of the tokenizer trained for a new report encoder"
    )
    method: MethodConfig
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _micro_batches_are_whole(self) -> PretrainConfig:
        pieces, batch = self.training.accumulation_steps, self.data.global_batch
        if batch % pieces:
            nearest = f"{batch - batch % pieces} or {batch + pieces - batch % pieces}"
            raise ValueError(
                f"data.global_batch={batch} cannot be cut into "
                f"training.accumulation_steps={pieces} equal parts: use {nearest}"
            )
        return self

    def check_ranks(self, world_size: int) -> None:
        """Raise InputError, naming what fits, unless `world_size` ranks can share the batch."""
        check_world_size(self.data.global_batch, world_size)
        pieces = self.training.accumulation_steps
        share = self.data.global_batch // world_size
        if share % pieces:
            raise InputError(
                f"training.accumulation_steps={pieces} does not divide the {share} pairs of each "
                f"of {world_size} ranks: choose a divisor of {share}"
            )


class EvaluateConfig(Config):
    """What `evaluate RUN_FOLDER key=value ...` can be told."""

    checkpoint: str = Field("best", description="best, last, a step folder's name, or untrained")
    split: Split = "test"
    shards: Path | None = Field(None, description="null: those the run was trained on")
    labelled_studies: PositiveInt = Field(
        600, description="training studies whose labels and masks a linear head may use"
    )
    labelled_subsets: PositiveInt = Field(
        1, description="how many such sets, without a study in common, the figures are means over"
    )
    labels: tuple[str, ...] = Field(
        (), description="those that a linear head is to tell; none: all that the shards have"
    )

    @property
    def file_name(self) -> str:
        """Where in the run folder the figures go."""
        return f"evaluation_{self.split}_{self.checkpoint}.json"

"""The whole of a pre-training run as one typed config."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, PositiveInt, model_validator

from data_shards.profiles import Config
from distributed_pretrain.data.config import DataConfig
from distributed_pretrain.methods.catalog import MethodConfig
from distributed_pretrain.training.config import OptimizerConfig, ScheduleConfig, TrainingConfig


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

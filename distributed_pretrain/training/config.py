"""Settings of the training loop. Defaults are LoVT's (specs and paper), on any device."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from data_shards.profiles import Config

Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Config):
    """AdamW or Adam (whose `weight_decay` is an L2 penalty) over all trainable parameters."""

    name: Literal["adamw", "adam"] = "adamw"
    learning_rate: PositiveFloat = 1e-4
    weight_decay: float = Field(1e-6, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    epsilon: PositiveFloat = 1e-8


class ScheduleConfig(Config):
    """How the learning rate moves: see `distributed_pretrain.training.schedules`."""

    name: Literal["constant", "cosine", "cosine_per_epoch"] = "cosine_per_epoch"
    warmup_steps: int = Field(0, ge=0)
    final_share: float = Field(0.0, ge=0, le=1, description="last rate / peak rate (cosine)")


class EarlyStoppingConfig(Config):
    """Stop after `patience` validations without an improvement of more than `min_delta`."""

    patience: PositiveInt = 10
    min_delta: float = Field(1e-5, ge=0)


class TrainingConfig(Config):
    """Length, precision, and when to validate, to save and to stop."""

    epochs: PositiveInt = 100
    max_steps: PositiveInt | None = None
    accumulation: Literal["plain"] | None = Field(
        None,
        description="plain: negatives come from within a micro-batch only, as the authors' 32 x 16 "
        "(global_batch 512, 16 steps); the exact form is not built yet",
    )
    accumulation_steps: PositiveInt = Field(1, description="micro-batches of a global batch")
    precision: Literal["float32", "bf16"] = "float32"
    channels_last: bool = False
    compile: bool = False
    clip_gradient_norm: PositiveFloat | None = None
    validate_every_steps: PositiveInt | None = Field(None, description="null: once an epoch")
    checkpoint_every_steps: PositiveInt | None = Field(None, description="null: once an epoch")
    keep_checkpoints: PositiveInt = Field(2, description="newest ones kept, besides the best")
    best_metric: str = Field("total", description="a validation metric: a loss term or a recall")
    best_is: Literal["lowest", "highest"] = "lowest"
    early_stopping: EarlyStoppingConfig | None = EarlyStoppingConfig()
    pictures: bool = True
    log_interval_seconds: PositiveFloat = Field(10.0, description="plain progress lines in a log")

    @model_validator(mode="after")
    def _accumulation_is_named(self) -> TrainingConfig:
        if (self.accumulation_steps > 1) != (self.accumulation is not None):
            raise ValueError(
                f"accumulation_steps={self.accumulation_steps} with accumulation="
                f"{self.accumulation}: set accumulation=plain for more than one step, else null"
            )
        return self

    @model_validator(mode="after")
    def _direction_fits_metric(self) -> TrainingConfig:
        higher_is_better = "recall" in self.best_metric
        if higher_is_better != (self.best_is == "highest"):
            wanted = "highest" if higher_is_better else "lowest"
            raise ValueError(f"best_metric={self.best_metric} is best when {wanted}: set best_is")
        return self

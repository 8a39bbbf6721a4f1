"""Settings of the training loop. Defaults are LoVT's (specs and paper), on any device."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

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
    """How the learning rate moves: see `distributed_pretrain.training.schedules`.

    At most one of the warm-ups is given. `patience` and `factor` are of `plateau`: after more than
    `patience` validations whose best metric did not get better, the rate is multiplied.
    """

    name: Literal["constant", "cosine", "cosine_per_epoch", "plateau"] = "cosine_per_epoch"
    warmup_steps: int = Field(0, ge=0)
    warmup_epochs: float = Field(0.0, ge=0)
    warmup_share: float = Field(0.0, ge=0, lt=1, description="of all steps")
    final_share: float = Field(0.0, ge=0, le=1, description="last rate / peak rate (cosine)")
    patience: NonNegativeInt = 12
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5

    @model_validator(mode="after")
    def _one_warmup(self) -> ScheduleConfig:
        if sum(map(bool, (self.warmup_steps, self.warmup_epochs, self.warmup_share))) > 1:
            raise ValueError("give one of warmup_steps, warmup_epochs and warmup_share")
        return self


class EarlyStoppingConfig(Config):
    """Stop after `patience` validations without an improvement of more than `min_delta`."""

    patience: PositiveInt = 10
    min_delta: float = Field(1e-5, ge=0)


class DdpConfig(Config):
    """One process, or several that average their gradients (torch's DistributedDataParallel)."""

    name: Literal["ddp"] = "ddp"


class DeepSpeedConfig(Config):
    """DeepSpeed with optimizer states (1), gradients (2) or parameters (3) cut over the ranks.

    The models of this field fit on one GPU, so that DDP is the default.
    """

    name: Literal["deepspeed"] = "deepspeed"
    zero_stage: Literal[0, 1, 2, 3] = 1
    bucket_elements: PositiveInt = Field(50_000_000, description="gradients reduced at a time")
    overlap_communication: bool = True


DistributedConfig: TypeAlias = Annotated[DdpConfig | DeepSpeedConfig, Field(discriminator="name")]


class NonFiniteConfig(Config):
    """What happens to a step with a NaN or infinite loss or gradient on any rank: no update.

    After `rewind_after` of them in a row, weights and optimizer go back to the newest checkpoint
    from before the first of them, and training goes on with the samples that follow. Training
    stops at the `stop_after`-th of the run.
    """

    rewind_after: PositiveInt = 3
    stop_after: PositiveInt = 10


class TrainingConfig(Config):
    """Length, precision, ranks, and when to validate, to save and to stop."""

    epochs: PositiveInt = 100
    max_steps: PositiveInt | None = None
    accumulation: Literal["exact", "plain"] = Field(
        "exact",
        description="exact: every sample of the global batch is a negative of every other, by a "
        "first pass without gradients (gradient caching); plain: negatives come from within a "
        "micro-batch only, as the authors' 32 x 16 (global_batch 512, 16 steps)",
    )
    accumulation_steps: PositiveInt = Field(1, description="micro-batches of a rank's batch")
    precision: Literal["float32", "bf16"] = "float32"
    channels_last: bool = False
    compile: bool = False
    clip_gradient_norm: PositiveFloat | None = None
    non_finite: NonFiniteConfig = NonFiniteConfig()
    distributed: DistributedConfig = DdpConfig()
    rank_timeout_seconds: PositiveFloat = Field(
        20.0,
        description="a rank without a sign of life for so long is lost; launchers kill the rest "
        "30 s after a death: stay below",
    )
    collective_timeout_seconds: PositiveFloat = Field(
        1800.0, description="how long a collective waits for a rank that lives but does not come"
    )
    validate_every_steps: PositiveInt | None = Field(None, description="null: once an epoch")
    checkpoint_every_steps: PositiveInt | None = Field(None, description="null: once an epoch")
    keep_checkpoints: PositiveInt = Field(2, description="newest ones kept, besides the best")
    best_metric: str = Field(
        "total", description="a validation metric: a loss term, a recall or auroc"
    )
    best_is: Literal["lowest", "highest"] = "lowest"
    early_stopping: EarlyStoppingConfig | None = EarlyStoppingConfig()
    pictures: bool = True
    gradient_norms_every_steps: PositiveInt | None = Field(
        100, description="how often each loss term's gradient is measured, at a backward each"
    )
    peak_teraflops: PositiveFloat | None = Field(
        None, description="of one device at this precision, for mfu; null: by the device's name"
    )
    log_interval_seconds: PositiveFloat = Field(10.0, description="plain progress lines in a log")

    @model_validator(mode="after")
    def _direction_fits_metric(self) -> TrainingConfig:
        higher_is_better = self.best_metric.startswith("auroc") or "recall" in self.best_metric
        if higher_is_better != (self.best_is == "highest"):
            wanted = "highest" if higher_is_better else "lowest"
            raise ValueError(f"best_metric={self.best_metric} is best when {wanted}: set best_is")
        return self

"""What a training run is told. Defaults are those of LoVT's paper and code, on any device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from data_shards.errors import InputError
from data_shards.profiles import FREE, Config
from distributed_pretrain.data.order import check_world_size
from distributed_pretrain.data.settings import DataConfig

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

    At most one of the warm-ups is given; `warmup_share` is of all steps. `final_share` is the last
    rate of `cosine` / the peak rate. `patience` and `factor` are of `plateau`: after more than
    `patience` validations whose `metric` (null: training.best_metric) did not get better, the rate
    is multiplied.
    """

    name: Literal["constant", "cosine", "cosine_per_epoch", "plateau"] = "cosine_per_epoch"
    warmup_steps: int = Field(0, ge=0)
    warmup_epochs: float = Field(0.0, ge=0)
    warmup_share: float = Field(0.0, ge=0, lt=1)
    final_share: float = Field(0.0, ge=0, le=1)
    patience: NonNegativeInt = 12
    metric: str | None = None
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

    The models of this field fit on one GPU, so that DDP is the default. `bucket_elements` are
    gradients reduced at a time.
    """

    name: Literal["deepspeed"] = "deepspeed"
    zero_stage: Literal[0, 1, 2, 3] = 1
    bucket_elements: PositiveInt = 50_000_000
    overlap_communication: bool = True


class NonFiniteConfig(Config):
    """What happens to a step with a NaN or infinite loss or gradient on any rank: no update.

    After `rewind_after` of them in a row, weights and optimizer go back to the newest checkpoint
    from before the first of them, and training goes on with the samples that follow. Training
    stops at the `stop_after`-th of the run.
    """

    rewind_after: PositiveInt = 3
    stop_after: PositiveInt = 10


class TrainingConfig(Config):
    """Length, precision, ranks, and when to validate, to save (once an epoch) and to stop.

    `accumulation_steps` are micro-batches of a rank's batch. With `exact` accumulation every sample
    of the global batch is a negative of every other, by a first pass without gradients (gradient
    caching); with `plain` negatives come from within a micro-batch only, as the authors' 32 x 16
    (global_batch 512, 16 steps). With `plain` and `negatives_from` 32 a micro-batch may have more
    samples than are compared: losses between samples, and batch norms, are those of groups of 32
    (of all ranks together), and `accumulation_steps` decides about memory and speed alone: the
    groups are shared out as evenly as they can be.

    Products of `precision` bf16 or fp16 are half as wide; fp16's range is small: losses are scaled,
    and a step whose gradients leave it all the same is left out, which halves the scale and counts
    as none of `non_finite`.

    With `tf32` a GPU's products of float32 numbers keep 10 bits of each (logits of the global loss
    keep all). A resumed run goes on from the exact state; that its numbers are those of one that
    was not interrupted to the last bit holds on CPUs, and on GPUs with `deterministic`, which is
    slower.

    A rank without a sign of life for `rank_timeout_seconds` is lost: launchers kill the rest 30 s
    after a death, stay below. `collective_timeout_seconds` is how long a collective waits for a
    rank that lives but does not come.

    `keep_checkpoints` counts the newest, besides the best by `best_metric`: a validation metric,
    such as a loss term, a recall or auroc. `gradient_norms_every_steps` measures each loss term's
    gradient, at a backward each. `peak_teraflops` are of one device at this precision, for mfu
    (null: by the device's name), `log_interval_seconds` of plain progress lines in a log.

    Synchronised batch norms share statistics among all ranks, or among `norm_ranks` consecutive
    ones (8: those of a node); another number of them is another recipe.

    `pack_reports`: whether text encoders read a micro-batch's reports laid one behind another, with
    hardly any padding (null: yes on a GPU). Embeddings are the same but for dropout's draws.

    `device: cuda` refuses to start without a GPU, which `any` does on a CPU. `device_memory_gib` is
    what a run may take of one device (null: what there is of a GPU); one that needs more is refused
    before its first step.
    """

    # Whether the best is highest is what the metric itself knows.
    former_names: ClassVar[Mapping[str, str | None]] = {"best_is": None}

    epochs: PositiveInt = 100
    max_steps: PositiveInt | None = None
    accumulation: Literal["exact", "plain"] = "exact"
    accumulation_steps: PositiveInt = 1
    negatives_from: PositiveInt | None = None
    norm_ranks: PositiveInt | None = None
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    tf32: Annotated[bool, FREE] = True
    deterministic: Annotated[bool, FREE] = False
    channels_last: bool = False
    compile: bool = False
    pack_reports: Annotated[bool | None, FREE] = None
    clip_gradient_norm: PositiveFloat | None = None
    non_finite: NonFiniteConfig = NonFiniteConfig()
    distributed: Annotated[DdpConfig | DeepSpeedConfig, Field(discriminator="name"), FREE] = (
        DdpConfig()
    )
    rank_timeout_seconds: Annotated[PositiveFloat, FREE] = 20.0
    collective_timeout_seconds: Annotated[PositiveFloat, FREE] = 1800.0
    validate_every_steps: PositiveInt | None = None
    checkpoint_every_steps: PositiveInt | None = None
    keep_checkpoints: Annotated[PositiveInt, FREE] = 2
    best_metric: str = "total"
    early_stopping: EarlyStoppingConfig | None = EarlyStoppingConfig()
    pictures: Annotated[bool, FREE] = True
    gradient_norms_every_steps: PositiveInt | None = 100
    peak_teraflops: Annotated[PositiveFloat | None, FREE] = None
    device: Annotated[Literal["any", "cuda"], FREE] = "any"
    device_memory_gib: Annotated[PositiveFloat | None, FREE] = None
    log_interval_seconds: Annotated[PositiveFloat, FREE] = 10.0

    def deciding(self) -> dict[str, Any]:
        """What decides weights and metrics: exact accumulation does not, however many parts."""
        decided = super().deciding()
        if self.accumulation == "exact" or self.negatives_from is not None:
            del decided["accumulation_steps"]
        return decided

    def total_steps(self, steps_per_epoch: int) -> int:
        """The steps of a run that nothing stops earlier."""
        whole = self.epochs * steps_per_epoch
        return min(whole, self.max_steps or whole)

    def compared_parts(self, global_batch: int) -> int:
        """In how many equal parts the samples of a global batch are compared with each other."""
        if self.accumulation == "exact":
            return 1
        return global_batch // (self.negatives_from or global_batch // self.accumulation_steps)

    def ordered_parts(self, global_batch: int) -> int:
        """In how many equal parts a global batch is shared out, so that ranks compare the same."""
        return max(self.accumulation_steps, self.compared_parts(global_batch))

    def groups(self, global_batch: int) -> tuple[int, ...]:
        """How many of the equal parts of a global batch each micro-batch holds, 1 or more."""
        each, more = divmod(self.ordered_parts(global_batch), self.accumulation_steps)
        return (each + 1,) * more + (each,) * (self.accumulation_steps - more)


class RunConfig(Config):
    """What every training run says, whatever its objective; others add what that is."""

    run_folder: Annotated[Path, FREE]
    seed: int = Field(12345, ge=0)
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    training: TrainingConfig = TrainingConfig()
    data: DataConfig

    @model_validator(mode="after")
    def _micro_batches_are_whole(self) -> Self:
        pieces, batch = self.training.accumulation_steps, self.data.global_batch
        if batch % pieces and self.training.negatives_from is None:
            nearest = f"{batch - batch % pieces} or {batch + pieces - batch % pieces}"
            raise ValueError(
                f"data.global_batch={batch} cannot be cut into "
                f"training.accumulation_steps={pieces} equal parts: use {nearest}"
            )
        return self

    @model_validator(mode="after")
    def _groups_are_whole(self) -> Self:
        training, batch = self.training, self.data.global_batch
        group = training.negatives_from
        if group is None:
            return self
        field = f"training.negatives_from={group}"
        if training.accumulation == "exact":
            raise ValueError(
                f"{field}: with accumulation=exact every sample is a negative of every other: "
                "set training.accumulation=plain, or leave negatives_from out"
            )
        if batch % group:
            raise ValueError(
                f"{field} does not divide data.global_batch={batch}: choose a divisor of it"
            )
        if (pieces := training.accumulation_steps) > batch // group:
            raise ValueError(
                f"{field}: of a batch of {batch} there are {batch // group} groups, too few for "
                f"training.accumulation_steps={pieces}: choose fewer steps, or a smaller group"
            )
        return self

    def check_ranks(self, world_size: int) -> None:
        """Raise InputError, naming what fits, unless `world_size` ranks can share the batch."""
        check_world_size(self.data.global_batch, world_size)
        pieces, share = self.training.accumulation_steps, self.data.global_batch // world_size
        group = self.training.negatives_from
        if group is None and share % pieces:
            raise InputError(
                f"training.accumulation_steps={pieces} does not divide the {share} pairs of each "
                f"of {world_size} ranks: choose a divisor of {share}"
            )
        if group is not None and group % world_size:
            raise InputError(
                f"training.negatives_from={group}: {world_size} ranks cannot hold equal parts of "
                f"a group: use a multiple of {world_size}"
            )

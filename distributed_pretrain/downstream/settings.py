"""A downstream task as one typed config: an encoder, data, and the protocol of its head."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, model_validator

from data_shards.errors import InputError
from data_shards.profiles import FREE, Config
from data_shards.records.study import Split
from data_shards.written import Written
from distributed_pretrain.downstream.protocols.base import LocalizedConfig
from distributed_pretrain.downstream.protocols.catalog import AnyProtocolConfig
from distributed_pretrain.measures.metric import mean_figures, read_figures
from distributed_pretrain.methods.encoders import ImageEncoderConfig
from distributed_pretrain.pretrain import settings as pretrain
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.step_folders import BEST
from distributed_pretrain.run_folder.task_folder import TaskFolder
from distributed_pretrain.training.settings import RunConfig

# The split and the weights that a task is judged by, and those that a learning rate is chosen by.
JUDGED: tuple[Split, str] = ("test", BEST)
TUNED: tuple[Split, str] = ("validate", BEST)
WEIGHT_FILES = frozenset({".pt", ".pth", ".safetensors"})
# What `encoder=WORD` stands for, besides a file and a run's folder.
STARTS: dict[str, str | None] = {"random": None, "imagenet": "IMAGENET1K_V1"}


class EncoderConfig(Config):
    """Where the encoder comes from: a run folder of `pretrain`, or `image_encoder`.

    `checkpoint` is best, last, a step folder's name, or untrained (as that run began).
    `image_encoder` is a model of torchvision or timm with weights of a name or a file, or, with
    none, drawn by `seed`: the same for all runs of a task.
    In one word: a run folder, a file of a ResNet-50's weights, or random or imagenet.
    """

    run_folder: Annotated[Path | None, FREE] = None
    checkpoint: str = BEST
    image_encoder: ImageEncoderConfig | None = None
    seed: NonNegativeInt = 0

    @model_validator(mode="before")
    @classmethod
    def _one_word(cls, values: Any) -> Any:
        if not isinstance(values, str | Path):
            return values
        if isinstance(values, Path):
            values = Written(str(values))
        if str(values) in STARTS:
            return {"image_encoder": {"weights": STARTS[str(values)]}}
        if Path(values).suffix in WEIGHT_FILES:
            return {"image_encoder": {"weights": values}}
        return {"run_folder": values}

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.run_folder is None) == (self.image_encoder is None):
            raise ValueError(
                "give one of run_folder and image_encoder, or encoder=RUN_FOLDER, a file of a "
                f"ResNet-50's weights ({', '.join(sorted(WEIGHT_FILES))}), {' or '.join(STARTS)}"
            )
        return self


class FeaturesConfig(Config):
    """What a frozen encoder makes of the images, computed once for all epochs and runs of a start.

    In `dtype`; in memory up to `memory_gib`, beyond in a file beside the run up to `disk_gib`, and
    beyond that not kept. By one process alone, and if no image is unreadable.
    """

    keep: Annotated[bool, FREE] = True
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    memory_gib: Annotated[float, Field(ge=0), FREE] = 8.0
    disk_gib: Annotated[float, Field(ge=0), FREE] = 100.0


class ProcedureConfig(Config):
    """How LoVT's figures come about: a learning rate is tuned, then some runs are judged.

    Of `learning_rates`, in this order, the first with the highest (best) figure of a single run on
    the validation split is taken; a single one is taken as it is. Then each of `seeds` draws the
    head and the order of a run with it, which is judged on the test split.
    """

    learning_rates: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)]
    seeds: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1)] = (0, 1, 2, 3, 4)

    @model_validator(mode="after")
    def _are_different(self) -> Self:
        for name in ("learning_rates", "seeds"):
            values = getattr(self, name)
            if twice := [each for each in values if values.count(each) > 1]:
                raise ValueError(f"{name}: {twice[0]} is there twice: keep one")
        return self


class DownstreamConfig(RunConfig):
    """One head, trained on the training split and judged on the test split by its best weights.

    Images are shown as `data` says, whatever the encoder was pre-trained with. With a `procedure`
    the run folder holds a run for each learning rate and each seed. Patients of the test split that
    the encoder was trained on are warned of, and with `strict_overlap` refused. `only_seeds` are
    those of the procedure that this start runs, as one job of many does; none: all.
    """

    encoder: EncoderConfig
    protocol: AnyProtocolConfig
    procedure: ProcedureConfig | None = None
    features: FeaturesConfig = FeaturesConfig()
    strict_overlap: Annotated[bool, FREE] = False
    only_seeds: Annotated[tuple[NonNegativeInt, ...], FREE] = ()

    @model_validator(mode="after")
    def _something_is_predicted(self) -> Self:
        wanted = self.protocol.TARGETS
        if not getattr(self.data, wanted):
            raise ValueError(
                f"data.{wanted}=[]: protocol.name={self.protocol.name} predicts {wanted}: name "
                f"those of the shards, for example data.{wanted}=[Pneumonia]"
            )
        return self

    @model_validator(mode="after")
    def _seeds_are_known(self) -> Self:
        known = self.procedure.seeds if self.procedure is not None else ()
        if unknown := [seed for seed in self.only_seeds if seed not in known]:
            seeds = ", ".join(map(str, known)) or "none: it is a single run"
            raise ValueError(f"only_seeds: {unknown[0]} is none of procedure.seeds ({seeds})")
        return self

    @model_validator(mode="after")
    def _gradients_can_be_dropped(self) -> Self:
        warms_up = isinstance(self.protocol, LocalizedConfig) and self.protocol.warms_up
        if warms_up and self.training.distributed.name == "deepspeed":
            raise ValueError(
                f"protocol.name={self.protocol.name}: DeepSpeed updates the encoder during the "
                "head's warm-up too: set protocol.warmup_steps=0, or "
                "training.distributed.name=ddp"
            )
        return self

    @property
    def wanted_seeds(self) -> tuple[int, ...]:
        """The seeds of the procedure that this start runs."""
        return self.only_seeds or (self.procedure.seeds if self.procedure is not None else ())

    @property
    def classes(self) -> tuple[str, ...]:
        """What is predicted."""
        names: tuple[str, ...] = getattr(self.data, self.protocol.TARGETS)
        return names


def refuse_what_cannot_start(config: DownstreamConfig, folder: Path, ranks: int) -> None:
    """Raise InputError for what would end a start in its first minute."""
    if config.procedure is not None:
        if ranks > 1:
            raise InputError(
                f"procedure: its runs are of one process each, not of {ranks} ranks: start it in "
                "one, or leave it out (procedure=null) and give optimizer.learning_rate and seed"
            )
        folder = folder / "runs"  # holds none: each of them is held against its own config
    pretrain.refuse_what_cannot_start(config, folder, ranks)
    refuse_missing_encoder(config.encoder)


def refuse_missing_encoder(config: EncoderConfig) -> None:
    """Raise InputError for a run folder without run or checkpoint."""
    if config.run_folder is not None:
        RunFolder(config.run_folder).refuse_missing(checkpoint=config.checkpoint)


def figures_of_task(config: DownstreamConfig, folder: Path) -> dict[str, float]:
    """What was measured on the test split: means over the seeds that are wanted; empty before."""
    run = TaskFolder(folder)
    if not config.only_seeds:
        return read_figures(run.evaluation(*JUDGED))
    seeds = [run.part("seeds", seed).evaluation(*JUDGED) for seed in config.only_seeds]
    figures = list(map(read_figures, seeds))
    return mean_figures(figures) if all(figures) else {}

"""What the settings of every method say: its encoders, what it reads, and how it is built."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Self

from pydantic import PositiveInt

from data_shards.profiles import Config
from distributed_pretrain.data.settings import Reads
from distributed_pretrain.methods.encoders import ImageEncoderConfig, ReportEncoderConfig
from distributed_pretrain.models.norms.kinds import Norm

if TYPE_CHECKING:
    from distributed_pretrain.methods.objective import Method


class Sizes(NamedTuple):
    """What a method is built for: the tokens its tokenizer knows, and the labels a batch has."""

    vocabulary: int
    classes: int = 0


class MethodConfig(Config):
    """Base of the settings of a method; each adds the `name` that profiles choose it by.

    `report_encoder` is None for a method that reads no reports.
    """

    former_names: ClassVar[Mapping[str, str | None]] = {
        "joint_dim": "embedding_dim",
        "contrastive_chunk_size": "chunk_size",
    }

    READS: ClassVar[Reads] = Reads()

    image_encoder: ImageEncoderConfig = ImageEncoderConfig()
    report_encoder: ReportEncoderConfig | None = None

    @property
    def reads(self) -> Reads:
        """What it reads of a study: `READS`, unless another setting decides."""
        return self.READS

    def as_in_one_process(self) -> Self:
        """The settings with which ranks together compute what one process does."""
        return self

    @abstractmethod
    def build(self, sizes: Sizes) -> Method:
        """The method. Raises InputError for encoders that are not there or do not fit."""


class TwoViewsConfig(MethodConfig):
    """Settings of a method that learns from two augmentations of an image, and from no report.

    `projection_norm` is that of its heads, null for none.
    """

    READS: ClassVar[Reads] = Reads(views="two_augmentations")

    report_encoder: None = None
    projection_dim: PositiveInt
    projection_hidden_dim: PositiveInt
    projection_norm: Norm | None = "sync"

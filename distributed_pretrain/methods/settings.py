"""What the settings of every method say: its encoders, what it reads, and how it is built."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from data_shards.profiles import Config
from distributed_pretrain.data.settings import Reads
from distributed_pretrain.methods.encoders import ImageEncoderConfig, ReportEncoderConfig

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

    image_encoder: ImageEncoderConfig = ImageEncoderConfig()
    report_encoder: ReportEncoderConfig | None = None

    @property
    def reads(self) -> Reads:
        """What it reads of a study."""
        return Reads()

    @abstractmethod
    def build(self, sizes: Sizes) -> Method:
        """The method. Raises InputError for encoders that do not exist, cannot be loaded, or do
        not fit.
        """

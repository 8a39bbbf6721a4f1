"""What the settings of ConVIRT and CLIP* share."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from data_shards.profiles import FREE
from distributed_pretrain.data.settings import Reads
from distributed_pretrain.methods.encoders import PretrainedReportEncoderConfig, ReportEncoderConfig
from distributed_pretrain.methods.settings import MethodConfig


class GlobalContrastConfig(MethodConfig):
    """Encoders, LoVT's sizes of the heads, and the loss.

    One random sentence of a report is read, unless `data.sentences` says `all`. `chunk_size` bounds
    the loss's memory.
    """

    report_encoder: ReportEncoderConfig = PretrainedReportEncoderConfig()
    embedding_dim: PositiveInt = 512
    projection_hidden_dim: PositiveInt = 2048
    temperature: PositiveFloat = 0.1
    image_to_report_weight: Annotated[float, Field(ge=0, le=1)] = 0.75
    chunk_size: Annotated[PositiveInt | None, FREE] = None

    @property
    def reads(self) -> Reads:
        """What it reads of a study."""
        return Reads(sentences="one")

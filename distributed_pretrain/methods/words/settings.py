"""What the settings of GLoRIA and LIMITR share."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from data_shards.profiles import FREE
from distributed_pretrain.methods.encoders import PretrainedReportEncoderConfig, ReportEncoderConfig
from distributed_pretrain.methods.settings import MethodConfig


class WordsConfig(MethodConfig):
    """The papers' settings; the joint space has the dimensions of the report encoder (768).

    `upsample_px` is the side to which images are stretched, null for none; `last_layers` are the
    report encoder's layers whose hidden states are added. `external_negatives` are of the own rank
    (`local`), whatever the accumulation, or of all ranks (`global`), for which words are exchanged
    (see `gather_tokens` for the bytes). `chunk_size` pairs are compared at a time (null: by the
    memory there is). `pair_weight` above 0 adds the max-pooled contrast of words with the regions
    of every image (`sentence_region_contrast`, of words), which neither paper has; it
    reaches as far as `external_negatives` do.
    """

    report_encoder: ReportEncoderConfig = PretrainedReportEncoderConfig(frozen_layers=None)
    upsample_px: PositiveInt | None = 299
    last_layers: PositiveInt = 4
    temperature: PositiveFloat = 0.1
    global_weight: NonNegativeFloat = 1.0
    external_negatives: Literal["local", "global"] = "local"
    pair_weight: NonNegativeFloat = 0.0
    pair_temperature: PositiveFloat = 0.1
    chunk_size: Annotated[PositiveInt | None, FREE] = None

    def as_in_one_process(self) -> Self:
        """With the negatives of all ranks."""
        return self.model_copy(update={"external_negatives": "global"})

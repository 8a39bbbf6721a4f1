"""The settings of GLoRIA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from data_shards.profiles import FREE
from distributed_pretrain.data.settings import Reads
from distributed_pretrain.methods.encoders import PretrainedReportEncoderConfig, ReportEncoderConfig
from distributed_pretrain.methods.settings import MethodConfig, Sizes

if TYPE_CHECKING:
    from distributed_pretrain.methods.gloria.method import Gloria


class GloriaConfig(MethodConfig):
    """The paper's settings; the joint space has the dimensions of the report encoder (768).

    `upsample_px` is the side to which images are stretched, null for none; `last_layers` are the
    report encoder's layers whose hidden states are added. `temperature` divides the global cosine
    and the local similarity alike (the paper's 10 is its inverse). `external_negatives` are of the
    own rank (`local`), whatever the accumulation, or of all ranks (`global`), for which words
    are exchanged (see `gather_tokens` for the bytes). `chunk_size` pairs are compared at a
    time (null: by the memory there is).
    """

    name: Literal["gloria"] = "gloria"
    report_encoder: ReportEncoderConfig = PretrainedReportEncoderConfig(frozen_layers=None)
    upsample_px: PositiveInt | None = 299
    last_layers: PositiveInt = 4
    temperature: PositiveFloat = 0.1
    attention_temperature: PositiveFloat = 4.0
    word_temperature: PositiveFloat = 5.0
    global_weight: NonNegativeFloat = 1.0
    local_weight: NonNegativeFloat = 1.0
    external_negatives: Literal["local", "global"] = "local"
    chunk_size: Annotated[PositiveInt | None, FREE] = None

    @property
    def reads(self) -> Reads:
        """What it reads of a study."""
        return Reads(text_policy="gloria", sentences="one", sentence_swaps=False, max_tokens=97)

    def build(self, sizes: Sizes) -> Gloria:
        """The method."""
        from distributed_pretrain.methods.gloria.method import Gloria

        return Gloria(self, self.image_encoder.build(), self.report_encoder.build(sizes.vocabulary))

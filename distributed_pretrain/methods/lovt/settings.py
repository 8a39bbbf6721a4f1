"""The settings of LoVT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from data_shards.profiles import FREE
from distributed_pretrain.methods.encoders import PretrainedReportEncoderConfig, ReportEncoderConfig
from distributed_pretrain.methods.settings import MethodConfig, Sizes
from distributed_pretrain.models.norms.kinds import Norm

if TYPE_CHECKING:
    from distributed_pretrain.methods.lovt.method import Lovt


class LovtConfig(MethodConfig):
    """The paper's settings; each switch is an ablation of its supplement or a named deviation.

    Ablations: a loss weight of 0, `attention_weights` off (regions and sentences count alike in
    the local losses), `attention_pooling` off (mean of regions, maximum of sentences, and no
    weights), `spatial_prior` off (a region's only positive is itself). Of the authors' code:
    `alignment_bias`, `alignment_norm`, and `gather_negatives` off (negatives of the own rank).
    Beyond the paper: `learnable_temperatures` (starting from the given ones, at least 0.01);
    `projection_norm` is that of the heads, and of the alignment with `alignment_norm` (see `Norm`
    for what each choice means on several ranks), `chunk_size` bounds the memory of the losses
    between samples. `pair_weight` above 0 adds the max-pooled contrast of sentences with the
    regions of every image (`sentence_region_contrast`), which LoVT has not: its own local losses
    need no image (docs/grounding.md), so that regions need not point. `sentence_context` alone
    reads sentences one by one: in that of the report a sentence may carry what others say.
    """

    name: Literal["lovt"] = "lovt"
    report_encoder: ReportEncoderConfig = PretrainedReportEncoderConfig()
    embedding_dim: PositiveInt = 512
    projection_hidden_dim: PositiveInt = 2048
    pooling_heads: PositiveInt = 8
    attention_pooling: bool = True
    attention_weights: bool = True
    global_temperature: PositiveFloat = 0.1
    local_temperature: PositiveFloat = 0.3
    learnable_temperatures: bool = False
    image_to_report_weight: Annotated[float, Field(ge=0, le=1)] = 0.75
    global_weight: NonNegativeFloat = 1.0
    local_image_weight: NonNegativeFloat = 0.75
    local_report_weight: NonNegativeFloat = 0.75
    pair_weight: NonNegativeFloat = 0.0
    pair_temperature: PositiveFloat = 0.1
    sentence_context: Literal["report", "alone"] = "report"
    spatial_prior: bool = True
    sharpness: PositiveFloat = 1.0
    cutoff: NonNegativeFloat = 0.5
    alignment_bias: bool = False
    alignment_norm: bool = False
    gather_negatives: bool = True
    chunk_size: Annotated[PositiveInt | None, FREE] = None
    projection_norm: Norm = "sync"

    def build(self, sizes: Sizes) -> Lovt:
        """The method."""
        from distributed_pretrain.methods.lovt.method import Lovt

        return Lovt(self, self.image_encoder.build(), self.report_encoder.build(sizes.vocabulary))

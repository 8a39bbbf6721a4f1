"""The settings of MGCA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from data_shards.profiles import FREE
from distributed_pretrain.data.settings import Reads
from distributed_pretrain.methods.encoders import PretrainedReportEncoderConfig, ReportEncoderConfig
from distributed_pretrain.methods.settings import MethodConfig, Sizes
from distributed_pretrain.models.norms.kinds import Norm

if TYPE_CHECKING:
    from distributed_pretrain.methods.mgca.method import Mgca


class MgcaConfig(MethodConfig):
    """The paper's settings, for a ResNet, or a ViT by `image_encoder.backbone: vit_b_16`.

    `report_layers` are those kept of the report encoder (null: all). `pair_weight`, `token_weight`
    and `prototype_weight` belong to its losses ITA, CTA and CPA. Prototypes do not learn in the
    first `frozen_prototype_epochs`. `projection_norm` is that of the heads (see `Norm`),
    `chunk_size` bounds ITA's memory.

    The authors' code differs from the paper in what CTA attends with (we follow the code, which
    learns nothing for it) and adds up the two directions of ITA and the two sides of CTA, where
    the paper and we take means: `pair_weight` and `token_weight` of 2 are what they trained with.

    `word_region_weight` above 0 adds what other methods call `pair_weight`: the max-pooled contrast
    of words with the regions of every image (`sentence_region_contrast`, of words).
    """

    READS: ClassVar[Reads] = Reads(text_policy="mgca", sentence_swaps=False, max_tokens=112)

    name: Literal["mgca"] = "mgca"
    report_encoder: ReportEncoderConfig = PretrainedReportEncoderConfig(frozen_layers=None)
    report_layers: PositiveInt | None = 6
    embedding_dim: PositiveInt = 128
    projection_hidden_dim: PositiveInt = 2048
    pair_weight: NonNegativeFloat = 1.0
    token_weight: NonNegativeFloat = 1.0
    prototype_weight: NonNegativeFloat = 1.0
    pair_temperature: PositiveFloat = 0.07
    token_temperature: PositiveFloat = 0.1
    word_region_weight: NonNegativeFloat = 0.0
    word_region_temperature: PositiveFloat = 0.1
    prototypes: PositiveInt = 500
    prototype_temperature: PositiveFloat = 0.2
    sinkhorn_epsilon: Annotated[float, Field(ge=0.005)] = 0.05
    sinkhorn_iterations: PositiveInt = 3
    frozen_prototype_epochs: NonNegativeInt = 1
    chunk_size: Annotated[PositiveInt | None, FREE] = None
    projection_norm: Norm = "sync"

    def build(self, sizes: Sizes) -> Mgca:
        """The method."""
        from distributed_pretrain.methods.mgca.method import Mgca

        report_encoder = self.report_encoder.build(sizes.vocabulary)
        if self.report_layers is not None:
            report_encoder.keep_layers(self.report_layers)
        return Mgca(self, self.image_encoder.build(), report_encoder)

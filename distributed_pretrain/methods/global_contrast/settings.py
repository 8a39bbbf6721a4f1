"""The settings of ConVIRT and of CLIP*, which contrast whole images with whole reports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from data_shards.profiles import FREE
from distributed_pretrain.data.settings import Reads
from distributed_pretrain.methods.encoders import PretrainedReportEncoderConfig, ReportEncoderConfig
from distributed_pretrain.methods.settings import MethodConfig, Sizes
from distributed_pretrain.models.norms.kinds import Norm

if TYPE_CHECKING:
    from distributed_pretrain.methods.global_contrast.method import GlobalContrast


class GlobalContrastConfig(MethodConfig):
    """Encoders, LoVT's sizes of the heads, and the loss.

    One random sentence of a report is read, unless `data.sentences` says `all`. `chunk_size` bounds
    the loss's memory.
    """

    READS: ClassVar[Reads] = Reads(sentences="one")

    report_encoder: ReportEncoderConfig = PretrainedReportEncoderConfig()
    embedding_dim: PositiveInt = 512
    projection_hidden_dim: PositiveInt = 2048
    temperature: PositiveFloat = 0.1
    image_to_report_weight: Annotated[float, Field(ge=0, le=1)] = 0.75
    chunk_size: Annotated[PositiveInt | None, FREE] = None

    def _with_heads(
        self, sizes: Sizes, *, norm: Norm | None, pooling_heads: int | None
    ) -> GlobalContrast:
        from distributed_pretrain.methods.global_contrast.method import GlobalContrast

        encoders = self.image_encoder.build(), self.report_encoder.build(sizes.vocabulary)
        return GlobalContrast(self, *encoders, norm=norm, pooling_heads=pooling_heads)


class ConvirtConfig(GlobalContrastConfig):
    """ConVIRT (Zhang et al., arXiv:2010.00747): the regions' mean, and heads without a norm."""

    name: Literal["convirt"] = "convirt"

    def build(self, sizes: Sizes) -> GlobalContrast:
        """The method."""
        return self._with_heads(sizes, norm=None, pooling_heads=None)


class ClipConfig(GlobalContrastConfig):
    """CLIP*, LoVT's baseline after CLIP (arXiv:2103.00020): LoVT's encoders, heads and loss.

    Regions are pooled by attention; `projection_norm` is that of the heads (see `Norm`).
    """

    name: Literal["clip"] = "clip"
    pooling_heads: PositiveInt = 8
    projection_norm: Norm = "sync"

    def build(self, sizes: Sizes) -> GlobalContrast:
        """The method."""
        heads = self.pooling_heads
        return self._with_heads(sizes, norm=self.projection_norm, pooling_heads=heads)

"""What methods share that contrast whole images with whole reports (ConVIRT, CLIP*)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from jaxtyping import Bool
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from data_shards.profiles import Config
from distributed_pretrain.batch import Batch, ReportTokens
from distributed_pretrain.losses.contrastive import global_contrastive_loss
from distributed_pretrain.methods.encoders import (
    ImageEncoderConfig,
    PretrainedReportEncoderConfig,
    ReportEncoderConfig,
    build_image_encoder,
    build_report_encoder,
)
from distributed_pretrain.methods.objective import (
    Coupled,
    ImageEmbeddings,
    JointOutputs,
    JointSpace,
    Method,
    ReportEmbeddings,
)
from distributed_pretrain.models.global_head import GlobalImageHead
from distributed_pretrain.models.norms.choice import Norm
from distributed_pretrain.models.pooling import max_of_tokens
from distributed_pretrain.models.projection import Projection


class GlobalContrastConfig(Config):
    """Encoders, LoVT's sizes of the heads, and the loss.

    The one random sentence a report is `data.sentences: one`. `contrastive_chunk_size` bounds the
    loss's memory.
    """

    image_encoder: ImageEncoderConfig = ImageEncoderConfig()
    report_encoder: ReportEncoderConfig = PretrainedReportEncoderConfig()
    joint_dim: PositiveInt = 512
    projection_hidden_dim: PositiveInt = 2048
    temperature: PositiveFloat = 0.1
    image_to_report_weight: Annotated[float, Field(ge=0, le=1)] = 0.75
    contrastive_chunk_size: PositiveInt | None = None


@dataclass(frozen=True, kw_only=True)
class GlobalOutputs(JointOutputs):
    """Projected images and reports; regions have no dimensions, since no loss reads them."""

    sample_mask: Bool[Tensor, " batch"]


class GlobalContrast(Method, JointSpace):
    """The image's regions pooled, the report's highest tokens, each projected, and one loss.

    Regions are averaged, or pooled by attention of `pooling_heads`; `norm` is that of the
    projections, None for none. Samples whose `sample_mask` is False reach no statistic, gradient
    or loss. Raises InputError for encoders that do not exist or cannot be loaded.
    """

    def __init__(
        self,
        config: GlobalContrastConfig,
        *,
        vocabulary_size: int,
        norm: Norm | None,
        pooling_heads: int | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = build_image_encoder(config.image_encoder)
        self.report_encoder = build_report_encoder(config.report_encoder, vocabulary_size)
        self.max_tokens = self.report_encoder.max_tokens
        self.term_weights = {"global": 1.0}
        self.image_head = GlobalImageHead(
            self.image_encoder.channels,
            hidden_dim=config.projection_hidden_dim,
            output_dim=config.joint_dim,
            norm=norm,
            pooling_heads=pooling_heads,
        )
        self.report_projection = Projection(
            self.report_encoder.dim,
            hidden_dim=config.projection_hidden_dim,
            output_dim=config.joint_dim,
            norm=norm,
        )

    def forward(self, batch: Batch) -> GlobalOutputs:
        """The embeddings of the images and reports of `batch`."""
        last_map = self.image_encoder(batch.images, batch.sample_mask)
        image, weights = self.image_head(last_map, batch.sample_mask)
        return GlobalOutputs(
            images=ImageEmbeddings(
                image=image,
                regions=last_map.permute(0, 2, 3, 1)[..., :0],
                region_weights=weights,
            ),
            reports=self._embed_reports(batch.report, batch.sample_mask),
            sample_mask=batch.sample_mask,
        )

    def coupled(self, outputs: GlobalOutputs) -> Coupled:
        """The embeddings of images and reports."""
        return Coupled(
            rows={
                "image": outputs.images.image,
                "report": outputs.reports.report,
                "sample_mask": outputs.sample_mask,
            },
            shared={},
        )

    def coupled_terms(self, coupled: Coupled) -> dict[str, Tensor]:
        """`global`: LoVT's eqs 3-5 and ConVIRT's 2-4, with λ = `image_to_report_weight`."""
        global_term = global_contrastive_loss(
            coupled.rows["image"],
            coupled.rows["report"],
            temperature=self.config.temperature,
            image_to_report_weight=self.config.image_to_report_weight,
            chunk_size=self.config.contrastive_chunk_size,
            sample_mask=coupled.rows["sample_mask"],
        )
        return {"global": global_term}

    def embed_images(self, batch: Batch) -> ImageEmbeddings:
        """Projected images, and each region as if it were the image."""
        last_map = self.image_encoder(batch.images, batch.sample_mask)
        image, weights = self.image_head(last_map, batch.sample_mask)
        return ImageEmbeddings(
            image=image,
            regions=self.image_head.embed_regions(last_map),
            region_weights=weights,
        )

    def embed_reports(self, report: ReportTokens) -> ReportEmbeddings:
        """Projected reports; the report is its only part."""
        return self._embed_reports(report, None)

    def _embed_reports(self, report: ReportTokens, sample_mask: Tensor | None) -> ReportEmbeddings:
        sentence_mask = report.sentence_mask
        if sample_mask is not None:
            sentence_mask = sentence_mask & sample_mask[:, None]
        sentences = self.report_encoder(
            report.token_ids, report.token_mask, report.sentence_index, sentence_mask
        )
        # The maximum of the sentences' maxima is that of all tokens.
        pooled = max_of_tokens(sentences, sentence_mask)
        report_embeddings = self.report_projection(pooled, sample_mask)
        return ReportEmbeddings(
            report=report_embeddings,
            parts=report_embeddings[:, None],
            part_mask=sentence_mask.any(dim=1, keepdim=True),
        )

"""CLIP*: LoVT's baseline after CLIP (arXiv:2103.00020), on images and one sentence each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from jaxtyping import Bool, Float
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from data_shards.profiles import Config
from distributed_pretrain.batch import Batch, ReportTokens
from distributed_pretrain.losses.contrastive import global_contrastive_loss
from distributed_pretrain.methods.base import (
    Coupled,
    ImageEmbeddings,
    JointOutputs,
    JointSpace,
    Method,
    ReportEmbeddings,
)
from distributed_pretrain.methods.encoders import (
    ImageEncoderConfig,
    PretrainedReportEncoderConfig,
    ReportEncoderConfig,
    build_image_encoder,
    build_report_encoder,
)
from distributed_pretrain.models.attention_pooling import max_of_tokens
from distributed_pretrain.models.global_head import GlobalImageHead
from distributed_pretrain.models.image_encoder import ImageEncoder
from distributed_pretrain.models.norms import Norm
from distributed_pretrain.models.projection import Projection
from distributed_pretrain.models.report_encoder import ReportEncoder


class ClipConfig(Config):
    """LoVT's settings for its baseline, which shares encoders, heads and loss with it.

    The one random sentence a report is `data.sentences: one`. `projection_norm` is that of the
    heads (see `Norm`), `contrastive_chunk_size` bounds the loss's memory.
    """

    name: Literal["clip"] = "clip"
    image_encoder: ImageEncoderConfig = ImageEncoderConfig()
    report_encoder: ReportEncoderConfig = PretrainedReportEncoderConfig()
    joint_dim: PositiveInt = 512
    projection_hidden_dim: PositiveInt = 2048
    pooling_heads: PositiveInt = 8
    temperature: PositiveFloat = 0.1
    image_to_report_weight: Annotated[float, Field(ge=0, le=1)] = 0.75
    contrastive_chunk_size: PositiveInt | None = None
    projection_norm: Norm = "sync"


@dataclass(frozen=True, kw_only=True)
class ClipOutputs(JointOutputs):
    """Projected images and reports; regions have no dimensions, since no loss reads them."""

    sample_mask: Bool[Tensor, " batch"]


class Clip(Method, JointSpace):
    """The image's regions pooled by attention and the report's highest tokens, each projected.

    Samples whose `sample_mask` is False reach no statistic, gradient or loss.
    """

    def __init__(
        self, config: ClipConfig, image_encoder: ImageEncoder, report_encoder: ReportEncoder
    ) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = image_encoder
        self.report_encoder = report_encoder
        self.max_tokens = report_encoder.max_tokens
        self.term_weights = {"global": 1.0}
        self.image_head = GlobalImageHead(
            image_encoder.channels,
            hidden_dim=config.projection_hidden_dim,
            output_dim=config.joint_dim,
            norm=config.projection_norm,
            pooling_heads=config.pooling_heads,
        )
        self.report_projection = Projection(
            report_encoder.dim,
            hidden_dim=config.projection_hidden_dim,
            output_dim=config.joint_dim,
            norm=config.projection_norm,
        )

    def forward(self, batch: Batch) -> ClipOutputs:
        """The embeddings of the images and reports of `batch`."""
        last_map = self.image_encoder(batch.images, batch.sample_mask)
        image, weights = self.image_head(last_map, batch.sample_mask)
        return ClipOutputs(
            images=ImageEmbeddings(
                image=image,
                regions=last_map.permute(0, 2, 3, 1)[..., :0],
                region_weights=weights,
            ),
            reports=self._embed_reports(batch.report, batch.sample_mask),
            sample_mask=batch.sample_mask,
        )

    def coupled(self, outputs: ClipOutputs) -> Coupled:
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
        """`global`: LoVT's eqs 3-5, with λ = `image_to_report_weight`."""
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

    def feature_map(
        self, images: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, "batch channels rows columns"]:
        """The image encoder's last feature map, before any head."""
        last_map: Tensor = self.image_encoder(images)
        return last_map

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


def build_clip(config: ClipConfig, *, vocabulary_size: int) -> Clip:
    """CLIP* as `config` describes it, for a tokenizer of `vocabulary_size` tokens.

    Raises InputError for encoders that do not exist or cannot be loaded.
    """
    return Clip(
        config,
        build_image_encoder(config.image_encoder),
        build_report_encoder(config.report_encoder, vocabulary_size),
    )

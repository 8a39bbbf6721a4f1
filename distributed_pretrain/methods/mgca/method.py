"""MGCA: alignment of pairs, of their tokens, and of clusters (Wang et al., arXiv:2210.06044)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from data_shards.profiles import Config
from distributed_pretrain.batch import Batch, ReportTokens
from distributed_pretrain.losses.contrastive import global_contrastive_loss
from distributed_pretrain.losses.precision import unit_vectors
from distributed_pretrain.losses.prototypes import prototype_loss
from distributed_pretrain.losses.token_alignment import clipped_weights, token_alignment_loss
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
from distributed_pretrain.models.image_encoder import ImageEncoder
from distributed_pretrain.models.image_tokens import encode_image_tokens, region_channels
from distributed_pretrain.models.norms.choice import Norm
from distributed_pretrain.models.projection import Projection
from distributed_pretrain.models.report_encoder import ReportEncoder, sum_word_pieces


class MgcaConfig(Config):
    """The paper's settings, for a ResNet, or a ViT by `image_encoder.backbone: vit_b_16`.

    `report_layers` are those kept of the report encoder (null: all). `pair_weight`, `token_weight`
    and `prototype_weight` belong to its losses ITA, CTA and CPA. Prototypes do not learn in the
    first `frozen_prototype_epochs`. `projection_norm` is that of the heads (see `Norm`),
    `contrastive_chunk_size` bounds ITA's memory.

    The authors' code differs from the paper in what CTA attends with (we follow the code, which
    learns nothing for it) and adds up the two directions of ITA and the two sides of CTA, where
    the paper and we take means: `pair_weight` and `token_weight` of 2 are what they trained with.
    """

    name: Literal["mgca"] = "mgca"
    image_encoder: ImageEncoderConfig = ImageEncoderConfig()
    report_encoder: ReportEncoderConfig = PretrainedReportEncoderConfig(frozen_layers=None)
    report_layers: PositiveInt | None = 6
    joint_dim: PositiveInt = 128
    projection_hidden_dim: PositiveInt = 2048
    pair_weight: NonNegativeFloat = 1.0
    token_weight: NonNegativeFloat = 1.0
    prototype_weight: NonNegativeFloat = 1.0
    pair_temperature: PositiveFloat = 0.07
    token_temperature: PositiveFloat = 0.1
    prototypes: PositiveInt = 500
    prototype_temperature: PositiveFloat = 0.2
    sinkhorn_epsilon: Annotated[float, Field(ge=0.005)] = 0.05
    sinkhorn_iterations: PositiveInt = 3
    frozen_prototype_epochs: NonNegativeInt = 1
    contrastive_chunk_size: PositiveInt | None = None
    projection_norm: Norm = "sync"


@dataclass(frozen=True, kw_only=True)
class MgcaOutputs(JointOutputs):
    """All that MGCA's losses need; the parts of a report are its words.

    `prototypes` are of length 1.
    """

    prototypes: Float[Tensor, "prototypes dim"]
    sample_mask: Bool[Tensor, " batch"]


class Mgca(Method, JointSpace):
    """MGCA's encoders, heads and its three losses.

    The image is the class token of a ViT and the mean of a ResNet's last map, the report is [CLS];
    regions are the ViT's patches or the cells of the ResNet's third stage, words the sums of their
    pieces. In the local loss words, and a ViT's patches, count by the attention that the class
    token pays them, clipped; a ResNet has no class token, and its regions count alike, as in the
    authors' code. That code also takes [SEP] for a word, and padded words into its batch norm.

    Samples whose `sample_mask` is False reach no statistic, gradient or loss, and neither do
    padded words.
    """

    def __init__(
        self, config: MgcaConfig, image_encoder: ImageEncoder, report_encoder: ReportEncoder
    ) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = image_encoder
        self.report_encoder = report_encoder
        self.max_tokens = report_encoder.max_tokens
        self.term_weights = {
            "pair": config.pair_weight,
            "token": config.token_weight,
            "prototype": config.prototype_weight,
        }
        self.prototypes_are_frozen = False
        self.image_projection = self._projection(image_encoder.channels)
        self.region_projection = self._projection(region_channels(image_encoder))
        self.report_projection = self._projection(report_encoder.dim)
        self.word_projection = self._projection(report_encoder.dim)
        # Only directions count (see `prototype_loss`), but the longer, the slower they turn.
        self.prototypes = nn.Parameter(
            unit_vectors(torch.randn(config.prototypes, config.joint_dim))
        )

    def start_step(self, *, epoch: int) -> None:
        """Freeze the prototypes in the first epochs, while embeddings still move fast."""
        self.prototypes_are_frozen = epoch < self.config.frozen_prototype_epochs

    def forward(self, batch: Batch) -> MgcaOutputs:
        """Every representation of `batch`."""
        return MgcaOutputs(
            images=self._embed_images(batch.images, batch.sample_mask),
            reports=self._embed_reports(batch.report, batch.sample_mask),
            # A new tensor, since DeepSpeed's stage 3 lets go of parameters after forward.
            prototypes=unit_vectors(self.prototypes),
            sample_mask=batch.sample_mask,
        )

    def coupled(self, outputs: MgcaOutputs) -> Coupled:
        """The global embeddings, and the prototypes."""
        return Coupled(
            rows={
                "image": outputs.images.image,
                "report": outputs.reports.report,
                "sample_mask": outputs.sample_mask,
            },
            shared={"prototypes": outputs.prototypes},
        )

    def coupled_terms(self, coupled: Coupled) -> dict[str, Tensor]:
        """`pair` and `prototype`: ITA and CPA, both over the samples of all ranks."""
        config = self.config
        image, report = coupled.rows["image"], coupled.rows["report"]
        pair_term = global_contrastive_loss(
            image,
            report,
            temperature=config.pair_temperature,
            image_to_report_weight=0.5,
            chunk_size=config.contrastive_chunk_size,
            sample_mask=coupled.rows["sample_mask"],
        )
        prototype_term = prototype_loss(
            image,
            report,
            coupled.shared["prototypes"],
            temperature=config.prototype_temperature,
            epsilon=config.sinkhorn_epsilon,
            iterations=config.sinkhorn_iterations,
            frozen=self.prototypes_are_frozen,
            sample_mask=coupled.rows["sample_mask"],
        )
        return {"pair": pair_term, "prototype": prototype_term}

    def sample_terms(self, outputs: MgcaOutputs) -> dict[str, Tensor]:
        """`token`: CTA, of regions and words of the same pair."""
        images, reports = outputs.images, outputs.reports
        assert images.region_weights is not None
        assert reports.part_weights is not None
        token_term = token_alignment_loss(
            images.regions.flatten(1, 2),
            reports.parts,
            reports.part_mask,
            region_weights=images.region_weights.flatten(1),
            word_weights=reports.part_weights,
            attention_temperature=self.config.token_temperature,
            temperature=self.config.token_temperature,
            sample_mask=outputs.sample_mask,
        )
        return {"token": token_term}

    def embed_images(self, batch: Batch) -> ImageEmbeddings:
        """Projected images and regions."""
        return self._embed_images(batch.images, batch.sample_mask)

    def embed_reports(self, report: ReportTokens) -> ReportEmbeddings:
        """Projected reports and words."""
        return self._embed_reports(report, None)

    def phrase_heat(
        self, phrases: ReportEmbeddings, images: ImageEmbeddings
    ) -> Float[Tensor, "phrases rows columns"]:
        """The attention that CTA lets each phrase's words pay the regions, weighted as in CTA.

        Of phrase i in image i; sums to 1.
        """
        assert phrases.part_weights is not None
        words = unit_vectors(phrases.parts, phrases.part_mask)
        cosine = words @ unit_vectors(images.regions.flatten(1, 2)).mT
        attention = (cosine / self.config.token_temperature).softmax(dim=2)
        heat: Tensor = torch.einsum("pw,pwr->pr", phrases.part_weights, attention)
        return heat.view(images.regions.shape[:3])

    def _embed_images(self, images: Tensor, sample_mask: Tensor) -> ImageEmbeddings:
        tokens = encode_image_tokens(self.image_encoder, images, sample_mask)
        grid = tokens.regions.shape[1:3]
        region_mask = sample_mask[:, None].expand(-1, grid.numel())
        attention = tokens.class_attention
        if attention is None:
            attention = torch.ones_like(region_mask, dtype=torch.float32)
        regions = self.region_projection(tokens.regions.flatten(1, 2), region_mask)
        return ImageEmbeddings(
            image=self.image_projection(tokens.image, sample_mask),
            regions=regions.unflatten(1, grid),
            region_weights=clipped_weights(attention, region_mask).unflatten(1, grid),
        )

    def _embed_reports(self, report: ReportTokens, sample_mask: Tensor | None) -> ReportEmbeddings:
        tokens, attention = self.report_encoder.embed_tokens_with_attention(
            report.token_ids, report.token_mask
        )
        # As many as there are tokens: fewer would have to be counted on the host.
        most = report.token_ids.shape[1]
        words, word_mask = sum_word_pieces(tokens, report.word_index, words=most)
        paid, _ = sum_word_pieces(attention.unsqueeze(2), report.word_index, words=most)
        if sample_mask is not None:
            word_mask = word_mask & sample_mask[:, None]
        return ReportEmbeddings(
            report=self.report_projection(tokens[:, 0], sample_mask),
            parts=self.word_projection(words, word_mask),
            part_mask=word_mask,
            part_weights=clipped_weights(paid.squeeze(2), word_mask),
        )

    def _projection(self, input_dim: int) -> Projection:
        return Projection(
            input_dim,
            hidden_dim=self.config.projection_hidden_dim,
            output_dim=self.config.joint_dim,
            norm=self.config.projection_norm,
            output_norm=True,
        )


def build_mgca(config: MgcaConfig, *, vocabulary_size: int) -> Mgca:
    """MGCA as `config` describes it, for a tokenizer of `vocabulary_size` tokens.

    Raises InputError for encoders that do not exist, cannot be loaded, or do not fit the method.
    """
    report_encoder = build_report_encoder(config.report_encoder, vocabulary_size)
    if config.report_layers is not None:
        report_encoder.keep_layers(config.report_layers)
    return Mgca(config, build_image_encoder(config.image_encoder), report_encoder)

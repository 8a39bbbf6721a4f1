"""LoVT: global and local contrastive alignment of images and reports (ECCV 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import normalize

from data_shards.profiles import Config
from distributed_pretrain.alignment.lovt import LovtAlignment
from distributed_pretrain.batch import Batch, ReportTokens
from distributed_pretrain.losses.contrastive import global_contrastive_loss
from distributed_pretrain.losses.local import local_image_loss, local_report_loss
from distributed_pretrain.losses.precision import at_least_float32
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
from distributed_pretrain.models.norms.choice import Norm
from distributed_pretrain.models.pooling import (
    AttentionPooling,
    max_of_tokens,
    mean_of_tokens,
    uniform_weights,
)
from distributed_pretrain.models.projection import Projection
from distributed_pretrain.models.report_encoder import ReportEncoder

_LOWEST_TEMPERATURE = 0.01


class LovtConfig(Config):
    """The paper's settings; each switch is an ablation of its supplement or a named deviation.

    Ablations: a loss weight of 0, `attention_weights` off (regions and sentences count alike in
    the local losses), `attention_pooling` off (mean of regions, maximum of sentences, and no
    weights), `spatial_prior` off (a region's only positive is itself). Of the authors' code:
    `alignment_bias`, `alignment_norm`, and `gather_negatives` off (negatives of the own rank).
    Beyond the paper: `learnable_temperatures` (starting from the given ones, at least 0.01);
    `projection_norm` is that of the heads, and of the alignment with `alignment_norm` (see `Norm`
    for what each choice means on several ranks), `contrastive_chunk_size` bounds the global
    loss's memory.
    """

    name: Literal["lovt"] = "lovt"
    image_encoder: ImageEncoderConfig = ImageEncoderConfig()
    report_encoder: ReportEncoderConfig = PretrainedReportEncoderConfig()
    joint_dim: PositiveInt = 512
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
    spatial_prior: bool = True
    sharpness: PositiveFloat = 1.0
    cutoff: NonNegativeFloat = 0.5
    alignment_bias: bool = False
    alignment_norm: bool = False
    gather_negatives: bool = True
    contrastive_chunk_size: PositiveInt | None = None
    projection_norm: Norm = "sync"


@dataclass(frozen=True, kw_only=True)
class LovtOutputs(JointOutputs):
    """All that LoVT's losses need, and the attention for pictures.

    Projected representations z, global and local; the parts of a report are its sentences.
    `regions_from_report` and `sentences_from_image` come from the other modality (eqs 1-2). Part
    masks are False for all sentences of samples that `sample_mask` leaves out. Temperatures are
    numbers, or (1,) tensors when learnt.
    """

    regions_from_report: Float[Tensor, "batch regions dim"]
    sentences_from_image: Float[Tensor, "batch sentences dim"]
    sample_mask: Bool[Tensor, " batch"]
    global_temperature: float | Float[Tensor, " 1"]
    local_temperature: float | Float[Tensor, " 1"]


class Lovt(Method, JointSpace):
    """LoVT's encoders, heads, alignment and losses (eqs 1-13).

    Samples whose `sample_mask` is False reach no statistic, gradient or loss, and neither do
    padded sentences.
    """

    def __init__(
        self, config: LovtConfig, image_encoder: ImageEncoder, report_encoder: ReportEncoder
    ) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = image_encoder
        self.report_encoder = report_encoder
        self.max_tokens = report_encoder.max_tokens
        self.term_weights = {
            "global": config.global_weight,
            "local_image": config.local_image_weight,
            "local_report": config.local_report_weight,
        }
        image_dim, report_dim = image_encoder.channels, report_encoder.dim
        if config.attention_pooling:
            self.region_pooling = AttentionPooling(image_dim, config.pooling_heads)
            self.sentence_pooling = AttentionPooling(report_dim, config.pooling_heads)
        self.image_projection = self._projection(image_dim)
        self.report_projection = self._projection(report_dim)
        self.region_projection = self._projection(image_dim)
        self.sentence_projection = self._projection(report_dim)
        self.alignment = LovtAlignment(
            config.joint_dim,
            bias=config.alignment_bias,
            output_norm=config.projection_norm if config.alignment_norm else None,
        )
        if config.learnable_temperatures:
            self.log_global_temperature = _log_parameter(config.global_temperature)
            self.log_local_temperature = _log_parameter(config.local_temperature)

    def forward(self, batch: Batch) -> LovtOutputs:
        """Every representation of `batch`."""
        image = self._embed_images(batch.images, batch.sample_mask)
        report = self._embed_reports(batch.report, batch.sample_mask)
        aligned = self.alignment(
            image.regions.flatten(1, 2), report.parts, report.part_mask, batch.sample_mask
        )
        return LovtOutputs(
            images=image,
            reports=report,
            regions_from_report=aligned.regions_from_report,
            sentences_from_image=aligned.sentences_from_image,
            sentence_to_region=aligned.sentence_to_region.unflatten(2, image.regions.shape[1:3]),
            sample_mask=batch.sample_mask,
            global_temperature=self._temperature("global"),
            local_temperature=self._temperature("local"),
        )

    def coupled(self, outputs: LovtOutputs) -> Coupled:
        """The global embeddings, and the temperature when it is learnt."""
        temperature = outputs.global_temperature
        return Coupled(
            rows={
                "image": outputs.images.image,
                "report": outputs.reports.report,
                "sample_mask": outputs.sample_mask,
            },
            shared={"temperature": temperature} if isinstance(temperature, Tensor) else {},
        )

    def coupled_terms(self, coupled: Coupled) -> dict[str, Tensor]:
        """`global` of eq 13 (eqs 3-5)."""
        config = self.config
        global_term = global_contrastive_loss(
            coupled.rows["image"],
            coupled.rows["report"],
            temperature=coupled.shared.get("temperature", config.global_temperature),
            image_to_report_weight=config.image_to_report_weight,
            chunk_size=config.contrastive_chunk_size,
            sample_mask=coupled.rows["sample_mask"],
            gather=config.gather_negatives,
        )
        return {"global": global_term}

    def sample_terms(self, outputs: LovtOutputs) -> dict[str, Tensor]:
        """`local_image` and `local_report` of eq 13 (eqs 6-12)."""
        config, images, reports = self.config, outputs.images, outputs.reports
        regions = images.regions.flatten(1, 2)
        local_image_term = local_image_loss(
            regions,
            outputs.regions_from_report,
            self._weights(images.region_weights, torch.ones_like(regions[..., 0]).bool()),
            grid=(images.regions.shape[1], images.regions.shape[2]),
            temperature=outputs.local_temperature,
            sharpness=config.sharpness,
            cutoff=config.cutoff if config.spatial_prior else 0.0,
            sample_mask=outputs.sample_mask,
        )
        local_report_term = local_report_loss(
            reports.parts,
            outputs.sentences_from_image,
            reports.part_mask,
            self._weights(reports.part_weights, reports.part_mask),
            temperature=outputs.local_temperature,
            sample_mask=outputs.sample_mask,
        )
        return {"local_image": local_image_term, "local_report": local_report_term}

    def embed_images(self, batch: Batch) -> ImageEmbeddings:
        """Projected global and region representations."""
        return self._embed_images(batch.images, batch.sample_mask)

    def embed_reports(self, report: ReportTokens) -> ReportEmbeddings:
        """Projected global and sentence representations."""
        return self._embed_reports(report, None)

    def phrase_heat(
        self, phrases: ReportEmbeddings, images: ImageEmbeddings
    ) -> Float[Tensor, "phrases rows columns"]:
        """Cosine of each phrase to what eq 2 would make of it from one region alone.

        That is the similarity of the local report loss (eq 11) for an attention that rests on the
        region. The cosine of a sentence to a region itself is nothing that LoVT's losses compare.
        """
        from_region = self.alignment.sentence_from_region(images.regions.flatten(1, 2))
        sentence = normalize(phrases.parts[:, :1], dim=-1)
        cosine = (sentence * normalize(from_region, dim=-1)).sum(dim=-1)
        return cosine.view(images.regions.shape[:3])

    def _embed_images(self, images: Tensor, sample_mask: Tensor | None) -> ImageEmbeddings:
        last_map = self.image_encoder(images, sample_mask)
        regions = last_map.flatten(2).transpose(1, 2)
        region_mask = None
        if sample_mask is not None:
            region_mask = sample_mask[:, None].expand(regions.shape[:2])
        if self.config.attention_pooling:
            pooled, weights = self.region_pooling(regions)
        else:
            pooled = mean_of_tokens(regions, None)
            weights = torch.full_like(at_least_float32(regions[..., 0]), 1 / regions.shape[1])
        grid = last_map.shape[2:]
        return ImageEmbeddings(
            image=self.image_projection(pooled, sample_mask),
            regions=self.region_projection(regions, region_mask).unflatten(1, grid),
            region_weights=weights.unflatten(1, grid),
        )

    def _embed_reports(self, report: ReportTokens, sample_mask: Tensor | None) -> ReportEmbeddings:
        sentence_mask = report.sentence_mask
        if sample_mask is not None:
            sentence_mask = sentence_mask & sample_mask[:, None]
        sentences = self.report_encoder(
            report.token_ids, report.token_mask, report.sentence_index, sentence_mask
        )
        if self.config.attention_pooling:
            pooled, weights = self.sentence_pooling(sentences, sentence_mask)
        else:
            pooled = max_of_tokens(sentences, sentence_mask)
            weights = uniform_weights(sentence_mask, at_least_float32(sentences).dtype)
        return ReportEmbeddings(
            report=self.report_projection(pooled, sample_mask),
            parts=self.sentence_projection(sentences, sentence_mask),
            part_mask=sentence_mask,
            part_weights=weights,
        )

    def _projection(self, input_dim: int) -> Projection:
        return Projection(
            input_dim,
            hidden_dim=self.config.projection_hidden_dim,
            output_dim=self.config.joint_dim,
            norm=self.config.projection_norm,
        )

    def _weights(self, weights: Tensor | None, mask: Tensor) -> Tensor:
        """The local loss's weights: the attention, or equal ones."""
        assert weights is not None
        if self.config.attention_weights:
            return weights.flatten(1)
        return uniform_weights(mask, weights.dtype)

    def _temperature(self, level: Literal["global", "local"]) -> float | Tensor:
        is_global = level == "global"
        if not self.config.learnable_temperatures:
            return self.config.global_temperature if is_global else self.config.local_temperature
        log = self.log_global_temperature if is_global else self.log_local_temperature
        return log.exp().clamp(min=_LOWEST_TEMPERATURE)


def build_lovt(config: LovtConfig, *, vocabulary_size: int) -> Lovt:
    """LoVT as `config` describes it, for a tokenizer of `vocabulary_size` tokens.

    Raises InputError for encoders that do not exist or cannot be loaded.
    """
    return Lovt(
        config,
        build_image_encoder(config.image_encoder),
        build_report_encoder(config.report_encoder, vocabulary_size),
    )


def _log_parameter(temperature: float) -> nn.Parameter:
    """ln τ, so that τ stays positive; (1,), since DeepSpeed fails on 0-dim parameters."""
    return nn.Parameter(torch.tensor([temperature]).log())

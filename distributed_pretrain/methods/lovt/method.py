"""LoVT: global and local contrastive alignment of images and reports (ECCV 2022)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from distributed_pretrain.alignment.lovt import LovtAlignment
from distributed_pretrain.batch import Batch, ReportTokens
from distributed_pretrain.losses.contrastive import global_contrastive_loss
from distributed_pretrain.losses.local import local_image_loss, local_report_loss
from distributed_pretrain.losses.precision import at_least_float32
from distributed_pretrain.losses.sentence_region_contrast import sentence_region_contrast
from distributed_pretrain.methods.image_text import (
    Heat,
    ImageEmbeddings,
    ImageTextMethod,
    ImageTextOutputs,
    ReportEmbeddings,
    cosine_map,
)
from distributed_pretrain.methods.lovt.settings import LovtConfig
from distributed_pretrain.methods.objective import Contrasted
from distributed_pretrain.models.heads import Projection
from distributed_pretrain.models.image_encoder import ImageEncoder
from distributed_pretrain.models.pooling import (
    AttentionPooling,
    max_of_tokens,
    mean_of_tokens,
    uniform_weights,
)
from distributed_pretrain.models.report_encoder import ReportEncoder

_LOWEST_TEMPERATURE = 0.01


@dataclass(frozen=True, kw_only=True)
class LovtOutputs(ImageTextOutputs):
    """All that LoVT's losses need.

    Projected representations z, global and local; the local parts of a report are its sentences.
    `regions_from_report` and `sentences_from_image` come from the other modality (eqs 1-2). Local
    masks are False for all sentences of samples that `sample_mask` leaves out. Temperatures are
    numbers, or (1,) tensors when learnt.
    """

    regions_from_report: Float[Tensor, "batch regions dim"]
    sentences_from_image: Float[Tensor, "batch sentences dim"]
    global_temperature: float | Float[Tensor, " 1"]
    local_temperature: float | Float[Tensor, " 1"]


class Lovt(ImageTextMethod):
    """LoVT's encoders, heads, alignment and losses (eqs 1-13).

    Padded sentences reach no statistic, gradient or loss.
    """

    terms_of_regions = ("local_image", "local_report", "pair")

    def __init__(
        self, config: LovtConfig, image_encoder: ImageEncoder, report_encoder: ReportEncoder
    ) -> None:
        super().__init__(image_encoder, report_encoder)
        self.config = config
        self.term_weights = {
            "global": config.global_weight,
            "local_image": config.local_image_weight,
            "local_report": config.local_report_weight,
        }
        if config.pair_weight:
            self.term_weights["pair"] = config.pair_weight
        image_dim, report_dim = image_encoder.channels, report_encoder.dim
        head = partial(
            Projection,
            hidden_dim=config.projection_hidden_dim,
            output_dim=config.embedding_dim,
            norm=config.projection_norm,
        )
        if config.attention_pooling:
            self.region_pooling = AttentionPooling(image_dim, config.pooling_heads)
            self.sentence_pooling = AttentionPooling(report_dim, config.pooling_heads)
        self.image_projection, self.report_projection = head(image_dim), head(report_dim)
        self.region_projection, self.sentence_projection = head(image_dim), head(report_dim)
        self.alignment = LovtAlignment(
            config.embedding_dim,
            bias=config.alignment_bias,
            output_norm=config.projection_norm if config.alignment_norm else None,
        )
        if config.learnable_temperatures:
            self.log_global_temperature = _log_parameter(config.global_temperature)
            self.log_local_temperature = _log_parameter(config.local_temperature)

    def paired(
        self,
        images: ImageEmbeddings,
        reports: ReportEmbeddings,
        sample_mask: Bool[Tensor, " batch"],
    ) -> LovtOutputs:
        """With what each makes of the other (eqs 1-2), and the temperatures."""
        aligned = self.alignment(
            images.regions.flatten(1, 2), reports.local, reports.local_mask, sample_mask
        )
        global_temperature, local_temperature = self._temperatures()
        return LovtOutputs(
            images=images,
            reports=reports,
            regions_from_report=aligned.regions_from_report,
            sentences_from_image=aligned.sentences_from_image,
            sample_mask=sample_mask,
            global_temperature=global_temperature,
            local_temperature=local_temperature,
        )

    def contrasted(self, outputs: LovtOutputs) -> Contrasted:
        """The global embeddings; regions and sentences where they meet across samples."""
        rows = super().contrasted(outputs).rows
        if self.config.pair_weight:
            reports = outputs.reports
            assert reports.local_ids is not None
            rows |= {
                "regions": outputs.images.regions.flatten(1, 2),
                "sentences": reports.local,
                "sentence_mask": reports.local_mask,
                "sentence_ids": reports.local_ids,
            }
        temperature = outputs.global_temperature
        shared = {"temperature": temperature} if isinstance(temperature, Tensor) else {}
        return Contrasted(rows, shared)

    def batch_terms(
        self,
        image: Tensor,
        report: Tensor,
        sample_mask: Tensor,
        temperature: Tensor | None = None,
        **local: Tensor,
    ) -> dict[str, Tensor]:
        """`global` of eq 13 (eqs 3-5), and `pair` beyond the paper."""
        global_term = global_contrastive_loss(
            image,
            report,
            temperature=self.config.global_temperature if temperature is None else temperature,
            image_to_report_weight=self.config.image_to_report_weight,
            chunk_size=self.config.chunk_size,
            sample_mask=sample_mask,
            gather=self.config.gather_negatives,
        )
        if not self.config.pair_weight:
            return {"global": global_term}
        assert self.max_tokens is not None
        pair_term = sentence_region_contrast(
            **local,
            most_sentences=self.max_tokens,
            temperature=self.config.pair_temperature,
            chunk_size=self.config.chunk_size,
            sample_mask=sample_mask,
            gather=self.config.gather_negatives,
        )
        return {"global": global_term, "pair": pair_term}

    def sample_terms(self, outputs: LovtOutputs) -> dict[str, Tensor]:
        """`local_image` and `local_report` of eq 13 (eqs 6-12)."""
        config, images, reports = self.config, outputs.images, outputs.reports
        regions = images.regions.flatten(1, 2)
        local_image_term = local_image_loss(
            regions,
            outputs.regions_from_report,
            self._weights(images.region_weights, regions.new_ones(regions.shape[:2]).bool()),
            grid=(images.regions.shape[1], images.regions.shape[2]),
            temperature=outputs.local_temperature,
            sharpness=config.sharpness,
            cutoff=config.cutoff if config.spatial_prior else 0.0,
            sample_mask=outputs.sample_mask,
        )
        local_report_term = local_report_loss(
            reports.local,
            outputs.sentences_from_image,
            reports.local_mask,
            self._weights(reports.local_weights, reports.local_mask),
            temperature=outputs.local_temperature,
            sample_mask=outputs.sample_mask,
        )
        return {"local_image": local_image_term, "local_report": local_report_term}

    def embed_images(self, batch: Batch) -> ImageEmbeddings:
        """Projected global and region representations."""
        last_map = self.image_encoder(batch.images, batch.encoded_mask)
        regions = last_map.flatten(2).transpose(1, 2)
        region_mask = batch.sample_mask[:, None].expand(regions.shape[:2])
        if self.config.attention_pooling:
            pooled, weights = self.region_pooling(regions)
        else:
            pooled = mean_of_tokens(regions, None)
            weights = torch.full_like(at_least_float32(regions[..., 0]), 1 / regions.shape[1])
        grid = last_map.shape[2:]
        as_images = None
        # In training they would enter the head's statistics, and nobody asks.
        if not self.local_terms and not self.training:
            alone = regions
            if self.config.attention_pooling:
                alone = self.region_pooling.of_single(regions)
            as_images = self.image_projection(alone, region_mask).unflatten(1, grid)
        return ImageEmbeddings(
            image=self.image_projection(pooled, batch.sample_mask),
            regions=self.region_projection(regions, region_mask).unflatten(1, grid),
            region_weights=weights.unflatten(1, grid),
            regions_as_images=as_images,
        )

    def embed_reports(
        self, report: ReportTokens, sample_mask: Bool[Tensor, " batch"] | None = None
    ) -> ReportEmbeddings:
        """Projected global and sentence representations."""
        sentences, sentence_mask = self.encode_sentences(
            report, sample_mask, alone=self.config.sentence_context == "alone"
        )
        if self.config.attention_pooling:
            pooled, weights = self.sentence_pooling(sentences, sentence_mask)
        else:
            pooled = max_of_tokens(sentences, sentence_mask)
            weights = uniform_weights(sentence_mask, at_least_float32(sentences).dtype)
        return ReportEmbeddings(
            report=self.report_projection(pooled, sample_mask),
            local=self.sentence_projection(sentences, sentence_mask),
            local_mask=sentence_mask,
            local_weights=weights,
            local_ids=report.sentence_ids() if self.config.pair_weight else None,
        )

    def grounding_map(self, phrases: ReportEmbeddings, images: ImageEmbeddings) -> Heat:
        """The cosine that a loss compares.

        With `pair_weight` that of the phrase to the region. With the local report loss that to what
        eq 2 would make of the phrase from one region alone: eq 11's, of an attention that rests on
        the region. With neither that of the phrase as a report to the region as an image: nothing
        has trained the alignment, nor the heads of regions and sentences.
        """
        if self.config.pair_weight:
            return cosine_map(phrases.local[:, 0], images)
        if images.regions_as_images is not None:
            return cosine_map(phrases.report, replace(images, regions=images.regions_as_images))
        from_region = self.alignment.sentence_from_region(images.regions.flatten(1, 2))
        sentence = normalize(phrases.local[:, :1], dim=-1)
        cosine = (sentence * normalize(from_region, dim=-1)).sum(dim=-1)
        return cosine.view(images.regions.shape[:3])

    def _temperatures(self) -> tuple[float | Tensor, float | Tensor]:
        """The global and the local one."""
        if not self.config.learnable_temperatures:
            return self.config.global_temperature, self.config.local_temperature
        least = _LOWEST_TEMPERATURE
        global_temperature = self.log_global_temperature.exp().clamp(min=least)
        return global_temperature, self.log_local_temperature.exp().clamp(min=least)

    def _weights(self, weights: Tensor | None, mask: Tensor) -> Tensor:
        """The local loss's weights: the attention, or equal ones."""
        assert weights is not None
        uniform = not self.config.attention_weights
        return uniform_weights(mask, weights.dtype) if uniform else weights.flatten(1)


def _log_parameter(temperature: float) -> nn.Parameter:
    """ln τ, so that τ stays positive; (1,), since DeepSpeed fails on 0-dim parameters."""
    return nn.Parameter(torch.tensor([temperature]).log())

"""MGCA: alignment of pairs, of their tokens, and of clusters (Wang et al., arXiv:2210.06044)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from distributed_pretrain.batch import Batch, ReportTokens, text_ids
from distributed_pretrain.losses.contrastive import global_contrastive_loss
from distributed_pretrain.losses.precision import unit_vectors
from distributed_pretrain.losses.prototypes import prototype_loss
from distributed_pretrain.losses.sentence_region_contrast import sentence_region_contrast
from distributed_pretrain.losses.token_alignment import clipped_weights, token_alignment_loss
from distributed_pretrain.methods.image_text import (
    Heat,
    ImageEmbeddings,
    ImageTextMethod,
    ImageTextOutputs,
    ReportEmbeddings,
    cosine_map,
    of_real_samples,
)
from distributed_pretrain.methods.mgca.settings import MgcaConfig
from distributed_pretrain.methods.objective import Contrasted
from distributed_pretrain.models.heads import Projection
from distributed_pretrain.models.image_encoder import ImageEncoder
from distributed_pretrain.models.pooling import sum_word_pieces
from distributed_pretrain.models.report_encoder import ReportEncoder


@dataclass(frozen=True, kw_only=True)
class MgcaOutputs(ImageTextOutputs):
    """All that MGCA's losses need; the local parts of a report are its words.

    `prototypes` are of length 1.
    """

    prototypes: Float[Tensor, "prototypes dim"]


class Mgca(ImageTextMethod):
    """MGCA's encoders, heads and its three losses.

    The image is the class token of a ViT and the mean of a ResNet's last map, the report is [CLS];
    regions are the ViT's patches or the cells of the ResNet's third stage, words the sums of their
    pieces. In the local loss words, and a ViT's patches, count by the attention that the class
    token pays them, clipped; a ResNet has no class token, and its regions count alike, as in the
    authors' code. That code also takes [SEP] for a word, and padded words into its batch norm.

    Padded words reach no statistic, gradient or loss.
    """

    terms_of_regions = ("token", "word_region")

    def __init__(
        self, config: MgcaConfig, image_encoder: ImageEncoder, report_encoder: ReportEncoder
    ) -> None:
        super().__init__(image_encoder, report_encoder)
        self.config = config
        self.term_weights = {
            "pair": config.pair_weight,
            "token": config.token_weight,
            "prototype": config.prototype_weight,
        }
        if config.word_region_weight:
            self.term_weights["word_region"] = config.word_region_weight
        self.prototypes_are_frozen = False
        head = partial(
            Projection,
            hidden_dim=config.projection_hidden_dim,
            output_dim=config.embedding_dim,
            norm=config.projection_norm,
            output_norm=True,
        )
        self.image_projection = head(image_encoder.channels)
        self.region_projection = head(image_encoder.region_channels)
        self.report_projection = head(report_encoder.dim)
        self.word_projection = head(report_encoder.dim)
        # Only directions count (see `prototype_loss`), but the longer, the slower they turn.
        self.prototypes = nn.Parameter(
            unit_vectors(torch.randn(config.prototypes, config.embedding_dim))
        )

    def start_step(self, *, epoch: int, step: int = 0) -> None:
        """Freeze the prototypes in the first epochs, while embeddings still move fast."""
        del step
        self.prototypes_are_frozen = epoch < self.config.frozen_prototype_epochs

    def paired(
        self,
        images: ImageEmbeddings,
        reports: ReportEmbeddings,
        sample_mask: Bool[Tensor, " batch"],
    ) -> MgcaOutputs:
        """With the prototypes."""
        return MgcaOutputs(
            images=images,
            reports=reports,
            # A new tensor, since DeepSpeed's stage 3 lets go of parameters after forward.
            prototypes=unit_vectors(self.prototypes),
            sample_mask=sample_mask,
        )

    def contrasted(self, outputs: MgcaOutputs) -> Contrasted:
        """The global embeddings, and the prototypes; regions and words where they meet."""
        rows = super().contrasted(outputs).rows
        reports = outputs.reports
        if reports.local_ids is not None:
            assert reports.local_weights is not None
            rows |= {
                "regions": outputs.images.regions.flatten(1, 2),
                "sentences": reports.local,
                "sentence_mask": reports.local_mask,
                "sentence_ids": reports.local_ids,
                "sentence_weights": reports.local_weights,
            }
        return Contrasted(rows, {"prototypes": outputs.prototypes})

    def batch_terms(
        self,
        image: Tensor,
        report: Tensor,
        sample_mask: Tensor,
        prototypes: Tensor,
        **words: Tensor,
    ) -> dict[str, Tensor]:
        """`pair` and `prototype`: ITA and CPA, both over the samples of all ranks.

        Beyond the paper `word_region`, in which words count by their attention as in CTA.
        """
        config = self.config
        pair_term = global_contrastive_loss(
            image,
            report,
            temperature=config.pair_temperature,
            image_to_report_weight=0.5,
            chunk_size=config.chunk_size,
            sample_mask=sample_mask,
        )
        prototype_term = prototype_loss(
            image,
            report,
            prototypes,
            temperature=config.prototype_temperature,
            epsilon=config.sinkhorn_epsilon,
            iterations=config.sinkhorn_iterations,
            frozen=self.prototypes_are_frozen,
            sample_mask=sample_mask,
        )
        terms = {"pair": pair_term, "prototype": prototype_term}
        if words:
            assert self.max_tokens is not None
            terms["word_region"] = sentence_region_contrast(
                **words,
                most_sentences=self.max_tokens,
                temperature=config.word_region_temperature,
                chunk_size=config.chunk_size,
                sample_mask=sample_mask,
                gather=True,
            )
        return terms

    def sample_terms(self, outputs: MgcaOutputs) -> dict[str, Tensor]:
        """`token`: CTA, of regions and words of the same pair."""
        images, reports = outputs.images, outputs.reports
        assert images.region_weights is not None
        assert reports.local_weights is not None
        token_term = token_alignment_loss(
            images.regions.flatten(1, 2),
            reports.local,
            reports.local_mask,
            region_weights=images.region_weights.flatten(1),
            word_weights=reports.local_weights,
            temperature=self.config.token_temperature,
            sample_mask=outputs.sample_mask,
        )
        return {"token": token_term}

    def embed_images(self, batch: Batch) -> ImageEmbeddings:
        """Projected images and regions."""
        sample_mask = batch.sample_mask
        tokens = self.image_encoder.tokens(batch.images, batch.encoded_mask)
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

    def embed_reports(
        self, report: ReportTokens, sample_mask: Bool[Tensor, " batch"] | None = None
    ) -> ReportEmbeddings:
        """Projected reports and words."""
        tokens, attention = self.report_encoder.embed_tokens_with_attention(
            report.token_ids, report.token_mask, packing=report.packing
        )
        # As many as there are tokens: fewer would have to be counted on the host.
        most = report.token_ids.shape[1]
        words, word_mask = sum_word_pieces(tokens, report.word_index, words=most)
        paid, _ = sum_word_pieces(attention.unsqueeze(2), report.word_index, words=most)
        word_mask = of_real_samples(word_mask, sample_mask)
        return ReportEmbeddings(
            report=self.report_projection(tokens[:, 0], sample_mask),
            local=self.word_projection(words, word_mask),
            local_mask=word_mask,
            local_weights=clipped_weights(paid.squeeze(2), word_mask),
            local_ids=text_ids(report.token_ids, report.word_index, most)
            if self.config.word_region_weight
            else None,
        )

    def grounding_map(self, phrases: ReportEmbeddings, images: ImageEmbeddings) -> Heat:
        """The attention that CTA lets each phrase's words pay the regions, weighted as in CTA.

        Of phrase i in image i; sums to 1. With `word_region_weight` a loss compares cosines, and
        their mean, weighted alike, is the answer.
        """
        assert phrases.local_weights is not None
        words = unit_vectors(phrases.local, phrases.local_mask)
        if self.config.word_region_weight:
            return cosine_map((phrases.local_weights[..., None] * words).sum(dim=1), images)
        cosine = words @ unit_vectors(images.regions.flatten(1, 2)).mT
        attention = (cosine / self.config.token_temperature).softmax(dim=2)
        heat: Tensor = torch.einsum("pw,pwr->pr", phrases.local_weights, attention)
        return heat.view(images.regions.shape[:3])

"""LIMITR: words and regions of images from two views aligned pair by pair (ICCV 2023)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.func import functional_call

from distributed_pretrain.alignment.limitr import LimitrSimilarity, MatchedPairs
from distributed_pretrain.alignment.pairwise.products import as_factors
from distributed_pretrain.batch import Batch, ReportTokens
from distributed_pretrain.losses.contrastive import global_contrastive_loss
from distributed_pretrain.losses.external import external_loss, gather_tokens
from distributed_pretrain.losses.internal import internal_loss
from distributed_pretrain.losses.precision import zero_where_padded
from distributed_pretrain.methods.image_text import (
    ImageEmbeddings,
    ImageTextMethod,
    ImageTextOutputs,
    ReportEmbeddings,
)
from distributed_pretrain.methods.limitr.settings import LimitrConfig
from distributed_pretrain.methods.objective import Contrasted
from distributed_pretrain.methods.words import embed_report_words
from distributed_pretrain.models.heads import TwoLevelHeads
from distributed_pretrain.models.image_encoder import ImageEncoder, check_upsampling, upsampled
from distributed_pretrain.models.positions import GridPositions
from distributed_pretrain.models.report_encoder import ReportEncoder

# What the authors put in the place of the regions of a lateral that is not there.
_AUTHORS_FILLER = 1e-8


@dataclass(frozen=True, kw_only=True)
class LimitrOutputs(ImageTextOutputs):
    """All that LIMITR's losses need.

    The words' `local_weights` are q of their own image (supplement, section 4). `regions` are those
    of all views one after another, `region_mask` says which are real (None: all). `similarity`
    holds the parameters of the pair similarity by name.
    """

    regions: Float[Tensor, "batch regions dim"]
    region_mask: Bool[Tensor, "batch regions"] | None
    matched: MatchedPairs
    similarity: dict[str, Tensor]


class Limitr(ImageTextMethod):
    """LIMITR's encoders, one for each view, its pair similarity and its three losses.

    An image is the mean of the views there are; its regions are those of both, with the same fixed
    positions added. Position is part of a region's vector wherever that is compared. Only real
    laterals are encoded, and each head sees one view.

    The external loss is a contrasted term in either case. With local negatives it compares the
    samples of one rank with each other, all of the rank's share of a global batch: gradient
    caching then keeps what the profile promises, that micro-batches do not change the loss,
    while the number of ranks does. With global ones every rank compares its own images with all
    reports: N ranks compare N times as many pairs each and exchange the words (see
    `gather_tokens` for the bytes).

    The local parts of a report are its words, CLS first; padded ones reach no statistic, gradient
    or loss.
    """

    compares_local = True

    def __init__(
        self,
        config: LimitrConfig,
        image_encoder: ImageEncoder,
        lateral_encoder: ImageEncoder | None,
        report_encoder: ReportEncoder,
    ) -> None:
        super().__init__(image_encoder, report_encoder)
        self.config = config
        self.term_weights = {
            "global": config.global_weight,
            "external": config.external_weight,
            "internal": config.internal_weight,
        }
        dim = report_encoder.dim
        check_upsampling(image_encoder, config.upsample_px)
        self.heads = TwoLevelHeads(image_encoder, dim)
        self.lateral_encoder = lateral_encoder
        if lateral_encoder is not None:
            self.lateral_heads = TwoLevelHeads(lateral_encoder, dim)
        self.positions = GridPositions(dim) if config.position else None
        self.similarity_of_pairs = LimitrSimilarity(dim, config.variant, config.chunk_size)

    def forward(self, batch: Batch) -> LimitrOutputs:
        """Every representation of `batch`."""
        images = self.embed_images(batch)
        reports = self.embed_reports(batch.report, batch.sample_mask)
        regions, region_mask = self._joint_regions(images)
        matched = self.similarity_of_pairs.matched(
            regions, reports.local, reports.local_mask, region_mask
        )
        return LimitrOutputs(
            images=images,
            reports=replace(reports, local_weights=matched.word_weights),
            regions=regions,
            region_mask=region_mask,
            matched=matched,
            # New tensors, since DeepSpeed's stage 3 lets go of parameters after forward, and
            # gradient caching wants leaves of its own.
            similarity={
                name: self.similarity_of_pairs.get_parameter(name).clone()
                for name, _ in self.similarity_of_pairs.named_parameters()
            },
            sample_mask=batch.sample_mask,
        )

    def contrasted(self, outputs: LimitrOutputs) -> Contrasted:
        """Images, regions, reports and words, and what the pair similarity has learnt."""
        rows = {
            "image": outputs.images.image,
            "report": outputs.reports.report,
            "regions": outputs.regions,
            # As many columns as tokens less one: the same for all micro-batches of a batch.
            "words": outputs.reports.local,
            "word_mask": outputs.reports.local_mask,
            "sample_mask": outputs.sample_mask,
        }
        if outputs.region_mask is not None:
            rows["region_mask"] = outputs.region_mask
        return Contrasted(rows=rows, shared=outputs.similarity)

    def batch_terms(self, contrasted: Contrasted) -> dict[str, Tensor]:
        """`global`, both directions added, and `external`, of both sides of the similarity."""
        config, rows = self.config, contrasted.rows
        global_term = 2 * global_contrastive_loss(
            rows["image"],
            rows["report"],
            temperature=config.temperature,
            image_to_report_weight=0.5,
            sample_mask=rows["sample_mask"],
        )
        gather = config.external_negatives == "global"
        words, word_mask = rows["words"], rows["word_mask"]
        if gather:
            words, word_mask = gather_tokens(words, word_mask)
        sides = functional_call(
            self.similarity_of_pairs,
            contrasted.shared,
            (rows["regions"], words, word_mask, rows.get("region_mask")),
        )
        report_side, image_side = (
            external_loss(
                side,
                temperature=config.temperature,
                sample_mask=rows["sample_mask"],
                gather=gather,
            )
            for side in sides
        )
        return {"global": global_term, "external": self._of_sides(report_side, image_side)}

    def sample_terms(self, outputs: LimitrOutputs) -> dict[str, Tensor]:
        """`internal`: eq 6 for the regions, and its mirror image for the words."""
        config, matched = self.config, outputs.matched
        learned = config.internal_weights == "learned"
        region_term = internal_loss(
            outputs.regions,
            matched.attended_regions,
            outputs.region_mask,
            weights=matched.region_weights if learned else None,
            reduction=config.internal_reduction,
            temperature=config.temperature,
            sample_mask=outputs.sample_mask,
        )
        word_term = internal_loss(
            outputs.reports.local,
            matched.attended_words,
            outputs.reports.local_mask,
            weights=matched.word_weights if learned else None,
            reduction=config.internal_reduction,
            temperature=config.temperature,
            sample_mask=outputs.sample_mask,
        )
        return {"internal": self._of_sides(word_term, region_term)}

    def embed_images(self, batch: Batch) -> ImageEmbeddings:
        """The mean of the views, the regions of the frontal, and those of the lateral view."""
        tokens = self.image_encoder.tokens(self._upsampled(batch.images), batch.sample_mask)
        image, regions = self.heads(tokens)
        regions = self._placed(regions)
        if self.lateral_encoder is None:
            return ImageEmbeddings(image=image, regions=regions)
        assert batch.lateral is not None, "views: frontal_lateral"
        present = batch.lateral.mask & batch.sample_mask
        lateral_tokens = self.lateral_encoder.present_tokens(
            self._upsampled(batch.lateral.images), present
        )
        lateral, lateral_regions = self.lateral_heads(lateral_tokens)
        views = 1 + present[:, None].to(image.dtype)
        return ImageEmbeddings(
            image=(image + zero_where_padded(lateral, present)) / views,
            regions=regions,
            lateral_regions=self._placed(lateral_regions),
            lateral_mask=present,
        )

    def embed_reports(
        self, report: ReportTokens, sample_mask: Bool[Tensor, " batch"] | None = None
    ) -> ReportEmbeddings:
        """Reports and their words."""
        return embed_report_words(
            self.report_encoder, report, sample_mask, last_layers=self.config.last_layers
        )

    def similarity(
        self, images: ImageEmbeddings, reports: ReportEmbeddings
    ) -> Float[Tensor, "images reports"]:
        """The mean of the global cosine and the mean of the two sides of the pair similarity."""
        regions, region_mask = self._joint_regions(images)
        report_side, image_side = self.similarity_of_pairs(
            regions, reports.local, reports.local_mask, region_mask
        )
        local: Tensor = (report_side + image_side) / 2
        return (super().similarity(images, reports) + local) / 2

    def grounding_map(
        self, phrases: ReportEmbeddings, images: ImageEmbeddings
    ) -> Float[Tensor, "phrases rows columns"]:
        """The attention of the phrase's words over the regions of both views: the frontal's share.

        It is what the losses let words and regions meet by, in both variants; a mean of cosines
        would let words that look nowhere in particular count as much as those that do.
        """
        regions, region_mask = self._joint_regions(images)
        attention = self.similarity_of_pairs.phrase_attention(
            regions, phrases.local, phrases.local_mask, region_mask
        )
        rows, columns = images.regions.shape[1:3]
        return attention[:, : rows * columns].view(-1, rows, columns)

    def feature_map(
        self, images: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, "batch channels rows columns"]:
        """The frontal encoder's last feature map, of the upsampled images."""
        last_map: Tensor = self.image_encoder(self._upsampled(images))
        return last_map

    def _upsampled(self, images: Tensor) -> Tensor:
        return upsampled(images, self.config.upsample_px)

    def _placed(self, regions: Tensor) -> Tensor:
        return as_factors(regions if self.positions is None else self.positions(regions))

    def _joint_regions(self, images: ImageEmbeddings) -> tuple[Tensor, Tensor | None]:
        """The regions of all views one after another (B R D), and which of them are real."""
        frontal = images.regions.flatten(1, 2)
        if images.lateral_regions is None:
            return frontal, None
        assert images.lateral_mask is not None
        lateral = images.lateral_regions.flatten(1, 2)
        lateral_mask = images.lateral_mask[:, None].expand(lateral.shape[:2])
        if self.config.variant == "authors":
            filled = torch.where(lateral_mask[..., None], lateral, _AUTHORS_FILLER)
            return torch.cat([frontal, filled], dim=1), None
        real = torch.ones_like(frontal[..., 0], dtype=torch.bool)
        return torch.cat([frontal, lateral], dim=1), torch.cat([real, lateral_mask], dim=1)

    def _of_sides(self, report_side: Tensor, image_side: Tensor) -> Tensor:
        total = report_side + image_side
        return total / 2 if self.config.variant == "authors" else total

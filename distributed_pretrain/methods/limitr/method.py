"""LIMITR: words and regions of images from two views aligned pair by pair (ICCV 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import and_
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.func import functional_call

from distributed_pretrain.alignment.limitr import LimitrSimilarity, MatchedPairs
from distributed_pretrain.alignment.pairwise.products import as_factors
from distributed_pretrain.batch import Batch
from distributed_pretrain.losses.local import internal_loss
from distributed_pretrain.losses.precision import zero_where_padded
from distributed_pretrain.methods.image_text import (
    Heat,
    ImageEmbeddings,
    ImageTextOutputs,
    ReportEmbeddings,
    Similarity,
)
from distributed_pretrain.methods.limitr.settings import LimitrConfig
from distributed_pretrain.methods.objective import Contrasted
from distributed_pretrain.methods.words.method import WordsMethod
from distributed_pretrain.models.heads import TwoLevelHeads
from distributed_pretrain.models.image_encoder import ImageEncoder
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


class Limitr(WordsMethod):
    """LIMITR's encoders, one for each view, its pair similarity and its three losses.

    An image is the mean of the views there are; its regions are those of both, with the same fixed
    positions added. Position is part of a region's vector wherever that is compared. Only real
    laterals are encoded, and each head sees one view.
    """

    config: LimitrConfig
    terms_of_regions = ("external", "internal", "pair")

    def __init__(
        self,
        config: LimitrConfig,
        image_encoder: ImageEncoder,
        lateral_encoder: ImageEncoder | None,
        report_encoder: ReportEncoder,
    ) -> None:
        super().__init__(config, image_encoder, report_encoder)
        self.set_terms(
            {
                "global": config.global_weight,
                "external": config.external_weight,
                "internal": config.internal_weight,
            }
        )
        dim = report_encoder.dim
        self.lateral_encoder = lateral_encoder
        if lateral_encoder is not None:
            self.lateral_heads = TwoLevelHeads(lateral_encoder, dim)
        self.positions = GridPositions(dim) if config.position else None
        self.similarity_of_pairs = LimitrSimilarity(dim, config.variant, config.chunk_size)

    def paired(
        self,
        images: ImageEmbeddings,
        reports: ReportEmbeddings,
        sample_mask: Bool[Tensor, " batch"],
    ) -> LimitrOutputs:
        """With the regions of both views, and what each side attends to in the other."""
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
            sample_mask=sample_mask,
        )

    def contrasted(self, outputs: Any) -> Contrasted:
        """Besides, the regions of both views, and what the pair similarity has learnt."""
        whole = super().contrasted(outputs)
        rows, counts = whole.rows | {"regions": outputs.regions}, whole.counts
        if outputs.region_mask is not None:
            rows["region_mask"] = outputs.region_mask
            if present := outputs.images.lateral_present:
                each_view = outputs.regions.shape[1] // 2
                counts["region_counts"] = tuple(each_view * (1 + each) for each in present)
        return Contrasted(rows, outputs.similarity, counts)

    def batch_terms(
        self,
        image: Tensor,
        report: Tensor,
        regions: Tensor,
        words: Tensor,
        word_mask: Tensor,
        sample_mask: Tensor,
        region_mask: Tensor | None = None,
        word_ids: Tensor | None = None,
        word_counts: Sequence[int] | None = None,
        region_counts: Sequence[int] | None = None,
        **learnt: Tensor,
    ) -> dict[str, Tensor]:
        """`global`, both directions added, and `external`, of both sides of the similarity.

        Beyond the paper `pair`, of the frontal regions, which come first.
        """
        frontal = regions if self.lateral_encoder is None else regions.chunk(2, dim=1)[0]
        compared, mask, counts = self.compared_words(words, word_mask, word_counts)
        sides = functional_call(
            self.similarity_of_pairs,
            learnt,
            (regions, compared, mask, region_mask),
            {"word_counts": counts, "region_counts": region_counts},
        )
        external_terms = (self.external_term(each, sample_mask) for each in sides)
        return {
            "global": self.global_term(image, report, sample_mask),
            "external": self._of_sides(*external_terms),
            **self.pair_term(frontal, words, word_mask, word_ids, sample_mask),
        }

    def sample_terms(self, outputs: LimitrOutputs) -> dict[str, Tensor]:
        """`internal`: eq 6 for the regions, and its mirror image for the words."""
        matched, words = outputs.matched, outputs.reports
        learned = self.config.internal_weights == "learned"
        internal = partial(
            internal_loss,
            reduction=self.config.internal_reduction,
            temperature=self.config.temperature,
            sample_mask=outputs.sample_mask,
        )
        region_term = internal(
            outputs.regions,
            matched.attended_regions,
            outputs.region_mask,
            weights=matched.region_weights if learned else None,
        )
        word_term = internal(
            words.local,
            matched.attended_words,
            words.local_mask,
            weights=matched.word_weights if learned else None,
        )
        return {"internal": self._of_sides(word_term, region_term)}

    def embed_images(self, batch: Batch) -> ImageEmbeddings:
        """The mean of the views, the regions of the frontal, and those of the lateral view."""
        tokens = self.image_encoder.tokens(self.upsampled(batch.images), batch.encoded_mask)
        image, regions = self.heads(tokens)
        regions = self._placed(regions)
        if self.lateral_encoder is None:
            return ImageEmbeddings(image=image, regions=regions)
        assert batch.lateral is not None, "views: frontal_lateral"
        present = batch.lateral.mask & batch.sample_mask
        lateral_tokens = self.lateral_encoder.present_tokens(
            self.upsampled(batch.lateral.images), batch.lateral_mask
        )
        lateral, lateral_regions = self.lateral_heads(lateral_tokens)
        views = 1 + present[:, None].to(image.dtype)
        return ImageEmbeddings(
            image=(image + zero_where_padded(lateral, present)) / views,
            regions=regions,
            lateral_regions=self._placed(lateral_regions),
            lateral_mask=present,
            lateral_present=tuple(map(and_, batch.lateral.present, batch.real)),
        )

    def similarity(self, images: ImageEmbeddings, reports: ReportEmbeddings) -> Similarity:
        """The mean of the global cosine and the mean of the two sides of the pair similarity."""
        regions, region_mask = self._joint_regions(images)
        report_side, image_side = self.similarity_of_pairs(
            regions, reports.local, reports.local_mask, region_mask
        )
        local: Tensor = (report_side + image_side) / 2
        return (super().similarity(images, reports) + local) / 2

    def grounding_map(self, phrases: ReportEmbeddings, images: ImageEmbeddings) -> Heat:
        """The attention of the phrase's words over the regions of both views: the frontal's share.

        It is what the losses let words and regions meet by, in both variants; a mean of cosines
        would let words that look nowhere in particular count as much as those that do. With
        `pair_weight` a loss compares these cosines, and their mean is the answer.
        """
        if self.config.pair_weight:
            return self.compared_map(phrases, images)
        regions, region_mask = self._joint_regions(images)
        attention = self.similarity_of_pairs.phrase_attention(
            regions, phrases.local, phrases.local_mask, region_mask
        )
        rows, columns = images.regions.shape[1:3]
        return attention[:, : rows * columns].view(-1, rows, columns)

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

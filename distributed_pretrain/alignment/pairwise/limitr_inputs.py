"""What LIMITR's pair similarity is computed from, cut into blocks of pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from distributed_pretrain.alignment.pairwise.blocks import PairBlock
from distributed_pretrain.alignment.pairwise.dropout import PairDropout
from distributed_pretrain.alignment.pairwise.limitr_aggregation import (
    Aggregation,
    AuthorsWeights,
    PaperWeights,
    aggregation_of,
)
from distributed_pretrain.alignment.pairwise.limitr_attention import (
    IMAGE_HEAD,
    REPORT_HEAD,
    SHARPNESS,
    Direction,
)
from distributed_pretrain.alignment.pairwise.memory import KeptMemory, Scratch
from distributed_pretrain.alignment.pairwise.products import raw_scores
from distributed_pretrain.alignment.variants import Variant

# B images of a block, R regions of each, C reports of it, W words of each, D dim.


@dataclass(frozen=True)
class PairWork:
    """What is to be computed: the blocks, and what no gradient flows to. Rows are sorted."""

    blocks: list[PairBlock]
    region_mask: Tensor
    word_mask: Tensor
    product_dtype: torch.dtype
    dropout: PairDropout | None
    chunk_size: int | None

    def scratch(self, dim: int) -> Scratch:
        """Places for what is made of every word, or of every region, of a block's pairs."""
        tokens = max(block.pairs * max(block.regions, block.words) for block in self.blocks)
        return Scratch(tokens * dim, self.product_dtype, self.region_mask.device)

    def kept(self, dim: int, scores_dtype: torch.dtype) -> KeptMemory:
        """Room for the scores and for a vector of every word and region of every pair."""
        wanted_bytes = sum(
            block.pairs
            * (
                block.regions * block.words * scores_dtype.itemsize
                + (block.regions + block.words) * dim * self.product_dtype.itemsize
            )
            for block in self.blocks
        )
        return KeptMemory(wanted_bytes, self.chunk_size, self.region_mask.device)


@dataclass(frozen=True)
class PairInputs:
    """The inputs of all blocks: as they came for the raw scores, and in the products' dtype.

    `scales`: in `paper` 1 over the lengths of the regions and of the words.
    """

    regions: Tensor
    words: Tensor
    product_regions: Tensor
    product_words: Tensor
    scales: Sequence[Tensor]
    work: PairWork
    aggregation: Aggregation
    scratch: Scratch

    @classmethod
    def of(
        cls,
        regions: Tensor,
        words: Tensor,
        scales: Sequence[Tensor],
        work: PairWork,
        weights: PaperWeights | AuthorsWeights,
    ) -> PairInputs:
        """The inputs, their copies in the products' dtype, and what makes scores of them."""
        dtype, scratch = work.product_dtype, work.scratch(regions.shape[-1])
        factors = regions.to(dtype), words.to(dtype)
        aggregation = aggregation_of(weights, scratch)
        return cls(regions, words, *factors, scales, work, aggregation, scratch)

    @property
    def variant(self) -> Variant:
        """Whose attention it is."""
        return "paper" if self.scales else "authors"

    def products(self, block: PairBlock) -> tuple[Tensor, Tensor]:
        """Regions B R D and words C W D of a block, as they are multiplied."""
        return (
            self.product_regions[block.images, : block.regions],
            self.product_words[block.reports, : block.words],
        )

    def scores(self, block: PairBlock) -> Tensor:
        """What `attention_logits` takes, B R C W: λ cosine in `paper`, else raw."""
        if not self.scales:
            return raw_scores(
                self.regions[block.images, : block.regions],
                self.words[block.reports, : block.words],
            )
        # Of cosines a rounding to bfloat16 changes little.
        regions_BRD, words_CWD = self.products(block)
        scores = regions_BRD.flatten(0, 1) @ words_CWD.flatten(0, 1).T
        scores_BRCW = scores.view(*regions_BRD.shape[:2], *words_CWD.shape[:2])
        return self.scale_(scores_BRCW.to(self.scales[0].dtype), block)

    def scale_(self, scores_BRCW: Tensor, block: PairBlock) -> Tensor:
        """From products to λ cosine, in place, and from the gradient of the latter to theirs."""
        region_scale, word_scale = self.scales
        region_scale_BR = SHARPNESS * region_scale[block.images, : block.regions]
        scores_BRCW.mul_(region_scale_BR[:, :, None, None])
        return scores_BRCW.mul_(word_scale[block.reports, : block.words])

    def masks(self, block: PairBlock) -> tuple[Tensor | None, Tensor | None]:
        """Of regions B R and words C W, where any is padded."""
        return (
            self.work.region_mask[block.images, : block.regions] if block.padded_regions else None,
            self.work.word_mask[block.reports, : block.words] if block.padded_words else None,
        )

    def directions(self, block: PairBlock, weights: tuple[Tensor, Tensor]) -> Iterator[Direction]:
        """The words', then the regions' direction."""
        regions_BRD, words_CWD = self.products(block)
        word_weights, region_weights = weights
        dtype = self.work.product_dtype
        direction = partial(Direction, aggregation=self.aggregation, scratch=self.scratch)
        yield direction(
            REPORT_HEAD,
            words_CWD,
            self.work.word_mask[block.reports, : block.words],
            regions_BRD,
            word_weights.to(dtype).flatten(2).mT,
            self._dropout(block, regions_attend=False),
        )
        yield direction(
            IMAGE_HEAD,
            regions_BRD,
            self.work.region_mask[block.images, : block.regions],
            words_CWD,
            region_weights.to(dtype).flatten(0, 1).transpose(0, 1),
            self._dropout(block, regions_attend=True),
        )

    def _dropout(self, block: PairBlock, *, regions_attend: bool) -> PairDropout | None:
        if self.work.dropout is None:
            return None
        return self.work.dropout.of_block(
            block.images, block.reports, regions_attend=regions_attend
        )

"""LIMITR's logits of all pairs of images and reports, in the memory of one block of pairs.

Forward keeps a few numbers for each word and region of a pair, and the vectors of as many pairs as
fit into a fixed sum of bytes; backward computes the others again, block by block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from distributed_pretrain.alignment.limitr_aggregation import (
    Aggregation,
    AuthorsWeights,
    PaperWeights,
    aggregation_of,
)
from distributed_pretrain.alignment.limitr_attention import (
    IMAGE_HEAD,
    REPORT_HEAD,
    Direction,
    DirectionResult,
    direction_backward,
    direction_forward,
    pair_attention,
)
from distributed_pretrain.alignment.pair_blocks import PairBlock
from distributed_pretrain.alignment.pair_dropout import PairDropout
from distributed_pretrain.alignment.pair_memory import KeptMemory, Scratch, memory_to_keep
from distributed_pretrain.alignment.pair_products import add_product, raw_scores
from distributed_pretrain.losses.precision import full_precision

# B images of a block, R regions of each, C reports of it, W words of each, D dim; O, I, T and U as
# in `limitr_attention`.


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
        return memory_to_keep(wanted_bytes, self.chunk_size, self.region_mask.device)


@dataclass(frozen=True)
class _BlockResult:
    """What forward leaves of a block: its two directions, and the scores if there was room."""

    scores: Tensor | None
    directions: list[DirectionResult]


@dataclass(frozen=True)
class _Gradients:
    """Totals that the blocks add to, in at least float32."""

    regions: Tensor
    words: Tensor
    scales: list[Tensor | None]
    weights: list[Tensor]


def pair_logits(
    regions: Tensor,
    words: Tensor,
    region_scale: Tensor | None,
    word_scale: Tensor | None,
    work: PairWork,
    weights: PaperWeights | AuthorsWeights,
) -> tuple[Tensor, Tensor]:
    """The logits of the words' and of the regions' direction, images x reports each.

    Zeros must stand where words or regions are padded. The scales, 1 over the lengths of the
    vectors, are given in `paper`. Differentiable once.
    """
    with full_precision(regions):
        logits: tuple[Tensor, Tensor] = _PairLogits.apply(
            regions,
            words,
            region_scale,
            word_scale,
            work,
            type(weights),
            # Nothing is left to backward where there is none: whole validation sets are compared.
            torch.is_grad_enabled(),
            *weights,
        )
    return logits


class _PairLogits(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        regions: Tensor,
        words: Tensor,
        region_scale: Tensor | None,
        word_scale: Tensor | None,
        work: PairWork,
        kind: type[PaperWeights] | type[AuthorsWeights],
        keep: bool,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(regions, words, region_scale, word_scale, *weights)
        ctx.work, ctx.kind = work, kind
        tensors = _Inputs.of(regions, words, region_scale, word_scale, work)
        scratch = work.scratch(regions.shape[-1])
        aggregation = aggregation_of(kind(*weights), scratch)
        all_logits = [weights[0].new_empty(len(regions), len(words)) for _ in range(2)]
        kept = work.kept(regions.shape[-1], weights[0].dtype) if keep else None
        ctx.results = []
        for block in work.blocks:
            scores, scales, masks = tensors.scores(block)
            # Of all that may be kept they save the most work for their size.
            kept_scores = None if kept is None else kept.copy(scores)
            attention = pair_attention(scores, *scales, *masks)
            directions = []
            for direction in tensors.directions(block, attention):
                result = direction_forward(direction, aggregation, kept, scratch)
                logits = result.aggregated.logits
                all_logits[direction.head][block.images, block.reports] = (
                    logits if direction.words_attend else logits.T
                )
                directions.append(result)
            if keep:
                ctx.results.append(_BlockResult(kept_scores, directions))
        return all_logits[0], all_logits[1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d_logits_BA: Tensor) -> tuple[Any, ...]:
        regions, words, region_scale, word_scale, *weights = ctx.saved_tensors
        with full_precision(regions):
            tensors = _Inputs.of(regions, words, region_scale, word_scale, ctx.work)
            scratch = ctx.work.scratch(regions.shape[-1])
            aggregation = aggregation_of(ctx.kind(*weights), scratch)
            dtype = weights[0].dtype
            d_regions, d_words = (
                torch.zeros_like(values, dtype=dtype) for values in (regions, words)
            )
            d_scales = [
                None if scale is None else torch.zeros_like(scale)
                for scale in (region_scale, word_scale)
            ]
            d_weights = [torch.zeros_like(weight) for weight in weights]
            gradients = _Gradients(d_regions, d_words, d_scales, d_weights)
            for block, result in zip(ctx.work.blocks, ctx.results, strict=True):
                d_logits = [each[block.images, block.reports] for each in d_logits_BA]
                _block_backward(block, tensors, aggregation, result, d_logits, gradients, scratch)
        return (
            d_regions.to(regions.dtype),
            d_words.to(words.dtype),
            *d_scales,
            None,
            None,
            None,
            *d_weights,
        )


@dataclass(frozen=True)
class _Inputs:
    """The inputs of all blocks: as they came for the raw scores, and in the products' dtype."""

    regions: Tensor
    words: Tensor
    product_regions: Tensor
    product_words: Tensor
    region_scale: Tensor | None
    word_scale: Tensor | None
    work: PairWork

    @classmethod
    def of(
        cls,
        regions: Tensor,
        words: Tensor,
        region_scale: Tensor | None,
        word_scale: Tensor | None,
        work: PairWork,
    ) -> _Inputs:
        dtype = work.product_dtype
        return cls(
            regions,
            words,
            regions.to(dtype),
            words.to(dtype),
            None if region_scale is None else region_scale.detach(),
            None if word_scale is None else word_scale.detach(),
            work,
        )

    def products(self, block: PairBlock) -> tuple[Tensor, Tensor]:
        """Regions B R D and words C W D of a block, as they are multiplied."""
        return (
            self.product_regions[block.images, : block.regions],
            self.product_words[block.reports, : block.words],
        )

    def scores(
        self, block: PairBlock, kept: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor | None, Tensor | None], tuple[Tensor | None, Tensor | None]]:
        """Scores B R C W, and the scales and masks that `pair_attention` wants beside them."""
        images = block.images, slice(block.regions)
        reports = block.reports, slice(block.words)
        scales = (
            None if self.region_scale is None else self.region_scale[images],
            None if self.word_scale is None else self.word_scale[reports],
        )
        masks = (
            self.work.region_mask[images] if block.padded_regions else None,
            self.work.word_mask[reports] if block.padded_words else None,
        )
        if kept is not None:
            scores_BRCW = kept
        elif self.region_scale is None:
            scores_BRCW = raw_scores(self.regions[images], self.words[reports])
        else:
            # Of cosines a rounding to bfloat16 changes little.
            regions_BRD, words_CWD = self.products(block)
            scores = regions_BRD.flatten(0, 1) @ words_CWD.flatten(0, 1).T
            scores_BRCW = scores.view(*regions_BRD.shape[:2], *words_CWD.shape[:2])
            scores_BRCW = scores_BRCW.to(self.region_scale.dtype)
        return scores_BRCW, scales, masks

    def directions(self, block: PairBlock, attention: tuple[Tensor, Tensor]) -> Iterator[Direction]:
        """The words', then the regions' direction."""
        regions_BRD, words_CWD = self.products(block)
        word_attention, region_attention = (each.detach() for each in attention)
        dtype = self.work.product_dtype
        images, reports = block.images, block.reports
        yield Direction(
            REPORT_HEAD,
            words_CWD,
            self.work.word_mask[reports, : block.words],
            regions_BRD,
            word_attention.to(dtype).flatten(2).mT,
            self._dropout(block, regions_attend=False),
        )
        yield Direction(
            IMAGE_HEAD,
            regions_BRD,
            self.work.region_mask[images, : block.regions],
            words_CWD,
            # Copied into the order of the products, which are slower on strided rows.
            region_attention.to(dtype).permute(2, 0, 1, 3).contiguous().flatten(1, 2),
            self._dropout(block, regions_attend=True),
        )

    def _dropout(self, block: PairBlock, *, regions_attend: bool) -> PairDropout | None:
        if self.work.dropout is None:
            return None
        return self.work.dropout.of_block(
            block.images, block.reports, regions_attend=regions_attend
        )


def _block_backward(
    block: PairBlock,
    tensors: _Inputs,
    aggregation: Aggregation,
    result: _BlockResult,
    d_logits_BC: list[Tensor],
    gradients: _Gradients,
    scratch: Scratch,
) -> None:
    """Add a block's part to the gradients, from what its two directions gave in forward."""
    scores, scales, masks = tensors.scores(block, result.scores)
    scores = scores.detach()
    leaves = [each.requires_grad_() for each in (scores, *scales) if each is not None]
    with torch.enable_grad():
        attention = pair_attention(scores, *scales, *masks)
    d_regions_BRD = gradients.regions[block.images, : block.regions]
    d_words_CWD = gradients.words[block.reports, : block.words]
    d_attention = []
    directions = tensors.directions(block, attention)
    for direction, left, d_logits in zip(directions, result.directions, d_logits_BC, strict=True):
        if direction.words_attend:
            d_tokens, d_attended, d_logits_OI = d_words_CWD, d_regions_BRD, d_logits
        else:
            d_tokens, d_attended, d_logits_OI = d_regions_BRD, d_words_CWD, d_logits.T
        d_attention_OxITxU = direction_backward(
            direction,
            aggregation,
            left,
            d_logits_OI,
            d_tokens,
            d_attended,
            gradients.weights,
            scratch,
        )
        d_attention.append(
            d_attention_OxITxU.mT.view_as(scores)
            if direction.words_attend
            else d_attention_OxITxU.unflatten(1, scores.shape[:2]).permute(1, 2, 0, 3)
        )
    d_scores, *d_block_scales = torch.autograd.grad(
        attention, leaves, [each.to(scores.dtype) for each in d_attention]
    )
    regions_BRD, words_CWD = tensors.products(block)
    d_flat_scores = d_scores.to(regions_BRD.dtype).flatten(2)
    flat_words = words_CWD.flatten(0, 1)
    add_product(d_regions_BRD, d_flat_scores, flat_words.expand(len(regions_BRD), -1, -1))
    d_words_CWD.add_((d_flat_scores.flatten(0, 1).T @ regions_BRD.flatten(0, 1)).view_as(words_CWD))
    places = ((block.images, block.regions), (block.reports, block.words))
    if d_block_scales:
        for total, part, (rows, length) in zip(
            gradients.scales, d_block_scales, places, strict=True
        ):
            assert total is not None
            total[rows, :length].add_(part)

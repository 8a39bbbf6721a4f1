"""LIMITR's logits of all pairs of images and reports, in the memory of one block of pairs.

Forward keeps nothing of a pair but its two logits; backward computes each block again. Of the
three steps of a pair the attentions are small and left to automatic differentiation, block by
block; the local alignments and their aggregation, seven to eight times as large, are written out.
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
    AuthorsAggregation,
    AuthorsWeights,
    PaperAggregation,
    PaperWeights,
)
from distributed_pretrain.alignment.limitr_attention import pair_attention
from distributed_pretrain.alignment.pair_blocks import PairBlock
from distributed_pretrain.alignment.pair_dropout import PairDropout
from distributed_pretrain.alignment.pair_products import add_product, raw_scores
from distributed_pretrain.losses.precision import full_precision

# B images of a block, R regions of each, C reports of it, W words of each, D dim. For both
# directions at once: O sequences that are attended, U places of each, I sequences that attend,
# T tokens of each.

REPORT_HEAD, IMAGE_HEAD = 0, 1


@dataclass(frozen=True)
class PairWork:
    """What is to be computed: the blocks, and what no gradient flows to. Rows are sorted."""

    blocks: list[PairBlock]
    region_mask: Tensor
    word_mask: Tensor
    product_dtype: torch.dtype
    dropout: PairDropout | None


@dataclass(frozen=True)
class _Direction:
    """Tokens (I T D) and their mask, what they attend to (O U D) and how: O, I x T, U."""

    head: int
    tokens: Tensor
    mask: Tensor
    attended: Tensor
    attention: Tensor
    dropout: PairDropout | None


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
            regions, words, region_scale, word_scale, work, type(weights), *weights
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
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(regions, words, region_scale, word_scale, *weights)
        ctx.work, ctx.kind = work, kind
        tensors = _Inputs.of(regions, words, region_scale, word_scale, work)
        aggregation = _aggregation(kind, weights)
        logits = [weights[0].new_empty(len(regions), len(words)) for _ in range(2)]
        for block in work.blocks:
            scores, scales, masks = tensors.scores(block)
            attention = pair_attention(scores, *scales, *masks)
            for direction in tensors.directions(block, attention):
                _, aligned_OITD, _ = _align(direction)
                logit_OI = aggregation.forward(
                    aligned_OITD, direction.mask, direction.head, direction.dropout
                ).logits
                if direction.head == IMAGE_HEAD:
                    logit_OI = logit_OI.T
                logits[direction.head][block.images, block.reports] = logit_OI
        return logits[0], logits[1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d_logits_BA: Tensor) -> tuple[Any, ...]:
        regions, words, region_scale, word_scale, *weights = ctx.saved_tensors
        with full_precision(regions):
            tensors = _Inputs.of(regions, words, region_scale, word_scale, ctx.work)
            aggregation = _aggregation(ctx.kind, weights)
            dtype = weights[0].dtype
            d_regions, d_words = (
                torch.zeros_like(values, dtype=dtype) for values in (regions, words)
            )
            d_scales = [
                None if scale is None else torch.zeros_like(scale)
                for scale in (region_scale, word_scale)
            ]
            d_weights = [torch.zeros_like(weight) for weight in weights]
            for block in ctx.work.blocks:
                _block_backward(
                    block,
                    tensors,
                    aggregation,
                    d_logits_BA,
                    d_regions,
                    d_words,
                    d_scales,
                    d_weights,
                )
        return (
            d_regions.to(regions.dtype),
            d_words.to(words.dtype),
            *d_scales,
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
        self, block: PairBlock
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
        if self.region_scale is None:
            scores_BRCW = raw_scores(self.regions[images], self.words[reports])
        else:
            # Of cosines a rounding to bfloat16 changes little.
            regions_BRD, words_CWD = self.products(block)
            scores = regions_BRD.flatten(0, 1) @ words_CWD.flatten(0, 1).T
            scores_BRCW = scores.view(*regions_BRD.shape[:2], *words_CWD.shape[:2])
            scores_BRCW = scores_BRCW.to(self.region_scale.dtype)
        return scores_BRCW, scales, masks

    def directions(
        self, block: PairBlock, attention: tuple[Tensor, Tensor]
    ) -> Iterator[_Direction]:
        """The words', then the regions' direction."""
        regions_BRD, words_CWD = self.products(block)
        word_attention, region_attention = (each.detach() for each in attention)
        dtype = self.work.product_dtype
        images, reports = block.images, block.reports
        yield _Direction(
            REPORT_HEAD,
            words_CWD,
            self.work.word_mask[reports, : block.words],
            regions_BRD,
            word_attention.to(dtype).flatten(2).mT,
            self._dropout(block, regions_attend=False),
        )
        yield _Direction(
            IMAGE_HEAD,
            regions_BRD,
            self.work.region_mask[images, : block.regions],
            words_CWD,
            region_attention.to(dtype).permute(2, 0, 1, 3).flatten(1, 2),
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
    d_logits_BA: tuple[Tensor, ...],
    d_regions: Tensor,
    d_words: Tensor,
    d_scales: list[Tensor | None],
    d_weights: list[Tensor],
) -> None:
    """Add the gradients of one block to the last four."""
    scores, scales, masks = tensors.scores(block)
    leaves = [each.requires_grad_() for each in (scores, *scales) if each is not None]
    with torch.enable_grad():
        attention = pair_attention(scores, *scales, *masks)
    d_regions_BRD = d_regions[block.images, : block.regions]
    d_words_CWD = d_words[block.reports, : block.words]
    d_attention = []
    for direction in tensors.directions(block, attention):
        d_logit = d_logits_BA[direction.head][block.images, block.reports]
        words_attend = direction.head == REPORT_HEAD
        d_tokens, d_attended = (
            (d_words_CWD, d_regions_BRD) if words_attend else (d_regions_BRD, d_words_CWD)
        )
        d_attention_OxITxU = _direction_backward(
            direction,
            aggregation,
            d_logit if words_attend else d_logit.T,
            d_tokens,
            d_attended,
            d_weights,
        )
        d_attention.append(
            d_attention_OxITxU.mT.view_as(scores)
            if words_attend
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
        for total, part, (rows, length) in zip(d_scales, d_block_scales, places, strict=True):
            assert total is not None
            total[rows, :length].add_(part)


def _align(direction: _Direction) -> tuple[Tensor, Tensor, Tensor]:
    """What each token attends to, its local alignment with that, and 1 over what that's length was.

    Eqs 2 and 3: a = m o t / |m o t|, or 0 where m o t is. O I T D twice, O I T.
    """
    attended_OxITxD = direction.attention @ direction.attended
    attended_OITD = attended_OxITxD.unflatten(1, direction.tokens.shape[:2])
    aligned_OITD = attended_OITD * direction.tokens
    length_OIT = torch.linalg.vector_norm(aligned_OITD, dim=-1)
    inverse_OIT = torch.where(length_OIT > 0, 1 / length_OIT, 0.0)
    aligned_OITD.mul_(inverse_OIT[..., None])
    return attended_OITD, aligned_OITD, inverse_OIT


def _direction_backward(
    direction: _Direction,
    aggregation: Aggregation,
    d_logit_OI: Tensor,
    d_tokens_ITD: Tensor,
    d_attended_OUD: Tensor,
    d_weights: list[Tensor],
) -> Tensor:
    """The gradient of the attention; that of tokens, attended and weights is added in place."""
    attended_OITD, aligned_OITD, inverse_OIT = _align(direction)
    d_aligned_OITD, along_OIT = aggregation.backward(
        aligned_OITD,
        direction.mask,
        direction.head,
        direction.dropout,
        d_logit_OI,
        d_weights,
    )
    # Through a = p / |p|: what points along a is lost.
    along_OIT1 = along_OIT.neg().to(aligned_OITD.dtype)[..., None]
    d_product_OITD = d_aligned_OITD.addcmul_(aligned_OITD, along_OIT1).mul_(inverse_OIT[..., None])
    del aligned_OITD
    # Through p = m o t.
    d_tokens_ITD.add_(attended_OITD.mul_(d_product_OITD).sum(dim=0, dtype=d_tokens_ITD.dtype))
    del attended_OITD
    d_attended_OxITxD = d_product_OITD.mul_(direction.tokens).flatten(1, 2)
    # Through m = attention @ attended.
    add_product(d_attended_OUD, direction.attention.mT, d_attended_OxITxD)
    return d_attended_OxITxD @ direction.attended.mT


def _aggregation(kind: type[PaperWeights] | type[AuthorsWeights], weights: Any) -> Aggregation:
    if issubclass(kind, PaperWeights):
        return PaperAggregation(PaperWeights(*weights))
    return AuthorsAggregation(AuthorsWeights(*weights))

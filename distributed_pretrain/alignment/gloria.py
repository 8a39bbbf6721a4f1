"""GLoRIA's local similarity of every image with every report, through the words' attention.

The image as a word sees it, m_j = Σ_r α_rj v_r, is never made: with S = <v_r, t_j> and the
products G = <v_r, v_r'> of an image's regions, which serve all reports,

    <m_j, t_j> = Σ_r α_rj S_rj,     |m_j|² = Σ_r α_rj (G α)_rj.

So a pair holds regions x words numbers instead of words x dim, and its second matrix product,
regions x regions x words, is the smaller one while there are fewer regions than dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from distributed_pretrain.alignment.pairwise.blocks import (
    PairBlock,
    SortedRows,
    pair_blocks,
    sorted_by_length,
)
from distributed_pretrain.alignment.pairwise.products import (
    add_product,
    inverse_lengths,
    masked_softmax,
    product_dtype,
    raw_scores,
)
from distributed_pretrain.losses.precision import (
    at_least_float32,
    full_precision,
    zero_where_padded,
)

# B images, R regions of each, C reports, W words of each, D dim.

# Scores, attention, G α and their gradients are all of one size: so many are there at a time.
_TENSORS_OF_A_BLOCK = 8
BLOCK_BYTES = {"cpu": 2**24, "cuda": 2**28}


def gloria_similarity(
    regions: Float[Tensor, "images regions dim"],
    words: Float[Tensor, "reports words dim"],
    word_mask: Bool[Tensor, "reports words"],
    *,
    attention_temperature: float = 4.0,
    word_temperature: float = 5.0,
    chunk_size: int | None = None,
    word_counts: Sequence[int] | None = None,
) -> Float[Tensor, "images reports"]:
    """s = log Σ_j e^{5 cos(m_j, t_j)} of every image with every report, over the real words j.

    m_j = Σ_r α_rj v_r, where α is first a softmax of the raw scores <v_r, t_j> over the words and
    then softmax(4 x) over the regions (GLoRIA, Huang et al., ICCV 2021; 4 is
    `attention_temperature`, 5 `word_temperature`). The contrastive loss takes 10 s.

    Rows are images, columns reports. Padded words (mask False) change nothing, NaN included, and
    get no gradient; a report without words has similarity 0. `chunk_size` pairs
    are compared at a time, and once more in backward; any gives the same result. `word_counts` are
    those of `sorted_by_length`. The products
    follow autocast, or else the inputs' dtype (never float16); the rest and the result are in at
    least float32. Differentiable once.
    """
    dtype = product_dtype(regions, words)
    with full_precision(regions):
        images = SortedRows.all_real(*regions.shape[:2])
        reports = sorted_by_length(word_mask, word_counts)
        word_mask = reports.sort(word_mask)
        words = zero_where_padded(reports.sort(words), word_mask)
        numbers = regions.shape[1] * words.shape[1]
        work = _Work(
            pair_blocks(
                images,
                reports,
                chunk_size=chunk_size,
                bytes_per_pair=_TENSORS_OF_A_BLOCK * numbers * dtype.itemsize,
                block_bytes=BLOCK_BYTES[regions.device.type],
            ),
            word_mask,
            dtype,
            attention_temperature,
            word_temperature,
        )
        similarity: Tensor = _PairSimilarity.apply(regions, words, inverse_lengths(words), work)
    return reports.unsort(similarity, 1)


def gloria_phrase_attention(
    regions: Float[Tensor, "batch regions dim"],
    words: Float[Tensor, "batch words dim"],
    word_mask: Bool[Tensor, "batch words"],
    *,
    attention_temperature: float = 4.0,
) -> Float[Tensor, "batch regions"]:
    """The attention of phrase b's words over the regions of image b, averaged over its real words.

    That of `gloria_similarity` for the matched pairs: it sums to 1 (to 0 for a phrase without
    words). In at least float32.
    """
    with full_precision(regions):
        words_BWD = zero_where_padded(at_least_float32(words), word_mask)
        scores_BRW = at_least_float32(regions) @ words_BWD.mT
        over_words_BRW = masked_softmax(scores_BRW, word_mask[:, None], 2)
        attention_BRW = (attention_temperature * over_words_BRW).softmax(dim=1)
        of_real_words_BRW = torch.where(word_mask[:, None], attention_BRW, 0.0)
        return of_real_words_BRW.sum(dim=2) / word_mask.sum(dim=1, keepdim=True).clamp(min=1)


@dataclass(frozen=True)
class _Work:
    """What is to be computed: the blocks, and what no gradient flows to. Reports are sorted."""

    blocks: list[PairBlock]
    word_mask: Tensor
    product_dtype: torch.dtype
    attention_temperature: float
    word_temperature: float


class _PairSimilarity(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, regions: Tensor, words: Tensor, word_scale: Tensor, work: _Work
    ) -> Tensor:
        ctx.save_for_backward(regions, words, word_scale)
        ctx.work = work
        # Of the words of each block and what they see: <m, t> and |m|², B C W in at least float32.
        ctx.seen = []
        gram_BRR = _gram(regions, work.product_dtype)
        similarity = word_scale.new_empty(len(regions), len(words))
        for block in work.blocks:
            scores_BRCW = raw_scores(regions[block.images], words[block.reports, : block.words])
            attention_BRCW = _attention(scores_BRCW, block, work)
            image_scores_BRCW = _image_scores(gram_BRR[block.images], attention_BRCW)
            alignment_BCW = (attention_BRCW * scores_BRCW).sum(dim=1)
            squared_length_BCW = (attention_BRCW * image_scores_BRCW).sum(dim=1)
            similarity[block.images, block.reports] = _similarity(
                alignment_BCW, squared_length_BCW, word_scale, block, work
            )
            ctx.seen.append((alignment_BCW, squared_length_BCW))
        return similarity

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_similarity: Tensor) -> tuple[Tensor | None, ...]:
        regions, words, word_scale = ctx.saved_tensors
        work: _Work = ctx.work
        with full_precision(regions):
            dtype = work.product_dtype
            product_regions, product_words = regions.to(dtype), words.to(dtype)
            gram_BRR = _gram(regions, dtype)
            d_regions, d_words, d_gram_BRR = (
                torch.zeros_like(values, dtype=word_scale.dtype)
                for values in (regions, words, gram_BRR)
            )
            d_word_scale = torch.zeros_like(word_scale)
            for block, seen in zip(work.blocks, ctx.seen, strict=True):
                images, reports = block.images, (block.reports, slice(block.words))
                scores_BRCW = raw_scores(regions[images], words[reports])
                seen = [each.detach().requires_grad_() for each in (*seen, word_scale)]
                alignment_BCW, squared_length_BCW, scale = seen
                with torch.enable_grad():
                    similarity_BC = _similarity(
                        alignment_BCW, squared_length_BCW, scale, block, work
                    )
                d_alignment_BCW, d_squared_length_BCW, d_scale = torch.autograd.grad(
                    similarity_BC, seen, d_similarity[images, block.reports]
                )
                d_word_scale[reports].add_(d_scale[reports])
                d_scores_BRCW = _attention_backward(
                    scores_BRCW,
                    gram_BRR[images],
                    d_alignment_BCW,
                    d_squared_length_BCW,
                    d_gram_BRR[images],
                    block,
                    work,
                )
                d_flat_BRA = d_scores_BRCW.to(dtype).flatten(2)
                regions_BRD, words_CWD = product_regions[images], product_words[reports]
                flat_words_BAD = words_CWD.flatten(0, 1).expand(len(regions_BRD), -1, -1)
                add_product(d_regions[images], d_flat_BRA, flat_words_BAD)
                d_flat_words = d_flat_BRA.flatten(0, 1).T @ regions_BRD.flatten(0, 1)
                d_words[reports].add_(d_flat_words.view_as(words_CWD))
            # G = V Vᵀ is symmetric, and so is its gradient.
            add_product(d_regions, d_gram_BRR.mul_(2).to(dtype), product_regions)
        return d_regions.to(regions.dtype), d_words.to(words.dtype), d_word_scale, None


def _gram(regions: Tensor, dtype: torch.dtype) -> Tensor:
    regions_BRD = regions.to(dtype)
    return regions_BRD @ regions_BRD.mT


def _image_scores(gram_BRR: Tensor, attention_BRCW: Tensor) -> Tensor:
    """<v_r, m_j> of every region and word: G α."""
    flat_BRA = attention_BRCW.to(gram_BRR.dtype).flatten(2)
    return (gram_BRR @ flat_BRA).view_as(attention_BRCW).to(attention_BRCW.dtype)


def _attention(scores_BRCW: Tensor, block: PairBlock, work: _Work) -> Tensor:
    word_mask = work.word_mask[block.reports, : block.words] if block.padded_words else None
    over_words = masked_softmax(scores_BRCW, word_mask, 3)
    return (over_words * work.attention_temperature).softmax(dim=1)


def _similarity(
    alignment_BCW: Tensor,
    squared_length_BCW: Tensor,
    word_scale: Tensor,
    block: PairBlock,
    work: _Work,
) -> Tensor:
    """log Σ_j e^{5 cos} of every pair of a block, B C."""
    reports = block.reports, slice(block.words)
    # Rounding may leave the square of a zero vector's length below 0.
    tiny = torch.finfo(squared_length_BCW.dtype).tiny
    scale_BCW = squared_length_BCW.clamp(min=tiny).rsqrt() * word_scale[reports]
    logits_BCW = alignment_BCW * scale_BCW * work.word_temperature
    mask_CW = work.word_mask[reports]
    lowest = torch.finfo(logits_BCW.dtype).min
    similarity_BC = logits_BCW.masked_fill(~mask_CW, lowest).logsumexp(dim=-1)
    return torch.where(mask_CW.any(dim=-1), similarity_BC, 0.0)


def _attention_backward(
    scores_BRCW: Tensor,
    gram_BRR: Tensor,
    d_alignment_BCW: Tensor,
    d_squared_length_BCW: Tensor,
    d_gram_BRR: Tensor,
    block: PairBlock,
    work: _Work,
) -> Tensor:
    """The gradient of the scores; that of G is added in place."""
    scores_BRCW.requires_grad_()
    with torch.enable_grad():
        differentiable_BRCW = _attention(scores_BRCW, block, work)
    attention_BRCW = differentiable_BRCW.detach()
    # <m, t> is Σ α S, and |m|² is αᵀ G α.
    d_attention_BRCW = _image_scores(gram_BRR, attention_BRCW)
    d_attention_BRCW.mul_(2 * d_squared_length_BCW[:, None])
    d_attention_BRCW.addcmul_(scores_BRCW.detach(), d_alignment_BCW[:, None])
    flat_BRA = attention_BRCW.to(work.product_dtype).flatten(2)
    weighted_BRA = (attention_BRCW * d_squared_length_BCW[:, None]).to(work.product_dtype)
    add_product(d_gram_BRR, weighted_BRA.flatten(2), flat_BRA.mT)
    (d_scores_BRCW,) = torch.autograd.grad(differentiable_BRCW, scores_BRCW, d_attention_BRCW)
    return d_scores_BRCW.addcmul_(attention_BRCW, d_alignment_BCW[:, None])

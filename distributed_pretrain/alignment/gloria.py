"""GLoRIA's local similarity of every image with every report, through the words' attention.

The image as a word sees it, m_j = Σ_r α_rj v_r, is never made: with S = <v_r, t_j> and the
products G = <v_r, v_r'> of an image's regions, which serve all reports,

    <m_j, t_j> = Σ_r α_rj S_rj,     |m_j|² = Σ_r α_rj (G α)_rj.

So a pair holds regions x words numbers instead of words x dim, and its second matrix product,
regions x regions x words, is the smaller one while there are fewer regions than dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from distributed_pretrain.alignment.pair_blocks import (
    PairBlock,
    SortedRows,
    pair_blocks,
    sorted_by_length,
)
from distributed_pretrain.alignment.pair_products import (
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


def gloria_similarity(
    regions: Float[Tensor, "images regions dim"],
    words: Float[Tensor, "reports words dim"],
    word_mask: Bool[Tensor, "reports words"],
    *,
    attention_temperature: float = 4.0,
    word_temperature: float = 5.0,
    chunk_size: int | None = None,
) -> Float[Tensor, "images reports"]:
    """s = log Σ_j e^{5 cos(m_j, t_j)} of every image with every report, over the real words j.

    m_j = Σ_r α_rj v_r, where α is first a softmax of the raw scores <v_r, t_j> over the words and
    then softmax(4 x) over the regions (GLoRIA, Huang et al., ICCV 2021; 4 is
    `attention_temperature`, 5 `word_temperature`). The contrastive loss takes 10 s.

    Rows are images, columns reports. Padded words (mask False) change nothing, NaN included, and
    get no gradient; a report without words has similarity 0. `chunk_size` pairs
    are compared at a time, and once more in backward; any gives the same result. The products
    follow autocast, or else the inputs' dtype (never float16); the rest and the result are in at
    least float32. Differentiable once.
    """
    dtype = product_dtype(regions, words)
    with full_precision(regions):
        images = SortedRows.all_real(*regions.shape[:2])
        reports = sorted_by_length(word_mask)
        word_mask = reports.sort(word_mask)
        words = zero_where_padded(reports.sort(words), word_mask)
        work = _Work(
            pair_blocks(
                images,
                reports,
                chunk_size=chunk_size,
                bytes_per_pair=regions.shape[1] * words.shape[1] * dtype.itemsize,
                device=regions.device,
            ),
            word_mask,
            dtype,
            attention_temperature,
            word_temperature,
        )
        similarity: Tensor = _PairSimilarity.apply(regions, words, inverse_lengths(words), work)
    return reports.unsort(similarity, 1)


@dataclass(frozen=True)
class _Work:
    blocks: list[PairBlock]
    word_mask: Tensor
    product_dtype: torch.dtype
    attention_temperature: float
    word_temperature: float


@dataclass(frozen=True)
class _Attended:
    """The words of a block of pairs and what they see, in at least float32.

    B R C W: `scores`, `attention` α, `image_scores` G α. B C W: `alignment` <m, t>,
    `squared_length` |m|².
    """

    scores: Tensor
    attention: Tensor
    image_scores: Tensor
    alignment: Tensor
    squared_length: Tensor


class _PairSimilarity(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, regions: Tensor, words: Tensor, word_scale: Tensor, work: _Work
    ) -> Tensor:
        ctx.save_for_backward(regions, words, word_scale)
        ctx.work = work
        gram = _gram(regions, work.product_dtype)
        similarity = word_scale.new_empty(len(regions), len(words))
        for block in work.blocks:
            attended = _attend(block, regions, words, gram, work)
            similarity[block.images, block.reports] = _similarity(
                attended.alignment, attended.squared_length, block, word_scale, work
            )
        return similarity

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_similarity: Tensor) -> tuple[Tensor | None, ...]:
        regions, words, word_scale = ctx.saved_tensors
        work: _Work = ctx.work
        with full_precision(regions):
            gram = _gram(regions, work.product_dtype)
            product_regions = regions.to(work.product_dtype)
            product_words = words.to(work.product_dtype)
            d_regions, d_words = (
                torch.zeros_like(values, dtype=word_scale.dtype) for values in (regions, words)
            )
            d_gram = torch.zeros_like(gram, dtype=word_scale.dtype)
            d_word_scale = torch.zeros_like(word_scale)
            for block in work.blocks:
                reports = block.reports, slice(block.words)
                d_scores_BRCW = _block_backward(
                    _attend(block, regions, words, gram, work),
                    d_similarity[block.images, block.reports],
                    block,
                    word_scale,
                    d_gram[block.images],
                    d_word_scale[reports],
                    work,
                )
                flat_BRA = d_scores_BRCW.to(work.product_dtype).flatten(2)
                regions_BRD, words_CWD = product_regions[block.images], product_words[reports]
                flat_words_BAD = words_CWD.flatten(0, 1).expand(len(regions_BRD), -1, -1)
                add_product(d_regions[block.images], flat_BRA, flat_words_BAD)
                d_words[reports].add_(
                    (flat_BRA.flatten(0, 1).T @ regions_BRD.flatten(0, 1)).view_as(words_CWD)
                )
            # G is symmetric, and so is its gradient.
            add_product(d_regions, d_gram.mul_(2).to(work.product_dtype), product_regions)
        return d_regions.to(regions.dtype), d_words.to(words.dtype), d_word_scale, None


def _gram(regions_BRD: Tensor, dtype: torch.dtype) -> Tensor:
    regions_BRD = regions_BRD.to(dtype)
    return regions_BRD @ regions_BRD.mT


def _attend(
    block: PairBlock, regions: Tensor, words: Tensor, gram_BRR: Tensor, work: _Work
) -> _Attended:
    reports = block.reports, slice(block.words)
    scores_BRCW = raw_scores(regions[block.images], words[reports])
    attention_BRCW = _attention(scores_BRCW, block, work)
    flat_BRA = attention_BRCW.to(gram_BRR.dtype).flatten(2)
    image_scores = (gram_BRR[block.images] @ flat_BRA).view_as(scores_BRCW).to(scores_BRCW.dtype)
    return _Attended(
        scores_BRCW,
        attention_BRCW,
        image_scores,
        (attention_BRCW * scores_BRCW).sum(dim=1),
        (attention_BRCW * image_scores).sum(dim=1),
    )


def _attention(scores_BRCW: Tensor, block: PairBlock, work: _Work) -> Tensor:
    word_mask = work.word_mask[block.reports, : block.words] if block.padded_words else None
    over_words = masked_softmax(scores_BRCW, word_mask, 3)
    return (over_words * work.attention_temperature).softmax(dim=1)


def _similarity(
    alignment_BCW: Tensor,
    squared_length_BCW: Tensor,
    block: PairBlock,
    word_scale: Tensor,
    work: _Work,
) -> Tensor:
    reports = block.reports, slice(block.words)
    # Rounding may leave the square of a zero vector's length below 0.
    tiny = torch.finfo(squared_length_BCW.dtype).tiny
    cosine_BCW = alignment_BCW * squared_length_BCW.clamp(min=tiny).rsqrt() * word_scale[reports]
    logits_BCW = at_least_float32(cosine_BCW) * work.word_temperature
    lowest = torch.finfo(logits_BCW.dtype).min
    mask_CW = work.word_mask[reports]
    similarity_BC = logits_BCW.masked_fill(~mask_CW, lowest).logsumexp(dim=-1)
    return torch.where(mask_CW.any(dim=-1), similarity_BC, 0.0)


def _block_backward(
    attended: _Attended,
    d_similarity_BC: Tensor,
    block: PairBlock,
    word_scale: Tensor,
    d_gram_BRR: Tensor,
    d_word_scale_CW: Tensor,
    work: _Work,
) -> Tensor:
    """The gradient of the scores; those of G and of the words' scale are added in place."""
    small = [attended.alignment, attended.squared_length, word_scale.detach()]
    with torch.enable_grad():
        leaves = [each.requires_grad_() for each in small]
        similarity_BC = _similarity(leaves[0], leaves[1], block, leaves[2], work)
    d_alignment_BCW, d_squared_BCW, d_scale = torch.autograd.grad(
        similarity_BC, leaves, d_similarity_BC
    )
    d_word_scale_CW.add_(d_scale[block.reports, : block.words])
    attention_BRCW = attended.attention
    weighted_BRCW = attention_BRCW * d_squared_BCW[:, None]
    dtype = work.product_dtype
    add_product(
        d_gram_BRR, weighted_BRCW.to(dtype).flatten(2), attention_BRCW.to(dtype).flatten(2).mT
    )
    d_attention_BRCW = attended.image_scores.mul_(2 * d_squared_BCW[:, None])
    d_attention_BRCW.addcmul_(attended.scores, d_alignment_BCW[:, None])
    scores_BRCW = attended.scores.requires_grad_()
    with torch.enable_grad():
        attention_again_BRCW = _attention(scores_BRCW, block, work)
    (d_scores_BRCW,) = torch.autograd.grad(attention_again_BRCW, scores_BRCW, d_attention_BRCW)
    return d_scores_BRCW.addcmul_(attention_BRCW, d_alignment_BCW[:, None])

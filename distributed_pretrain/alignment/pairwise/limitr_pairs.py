"""LIMITR's logits of all pairs of images and reports, in the memory of one block of pairs.

Forward keeps a few numbers for each word and region of a pair, and the vectors of as many pairs as
fit into a fixed sum of bytes; backward computes the others again, block by block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from distributed_pretrain.alignment.pairwise.blocks import PairBlock
from distributed_pretrain.alignment.pairwise.limitr_aggregation import AuthorsWeights, PaperWeights
from distributed_pretrain.alignment.pairwise.limitr_attention import (
    DirectionResult,
    attention_logits,
)
from distributed_pretrain.alignment.pairwise.limitr_inputs import PairInputs, PairWork
from distributed_pretrain.alignment.pairwise.products import add_product, inverse_lengths
from distributed_pretrain.losses.precision import full_precision

# B images of a block, R regions of each, C reports of it, W words of each, D dim; O, I, T and U as
# in `limitr_attention`.


@dataclass(frozen=True)
class _Gradients:
    """Totals that the blocks add to, in at least float32.

    `along`: in `paper` how far the gradients of the cosines' vectors, regions and words, point
    along these. No length matters to a cosine, so that it is taken away in the end.
    """

    regions: Tensor
    words: Tensor
    weights: list[Tensor]
    along: list[Tensor]


def pair_logits(
    regions: Tensor, words: Tensor, work: PairWork, weights: PaperWeights | AuthorsWeights
) -> tuple[Tensor, Tensor]:
    """The logits of the words' and of the regions' direction, images x reports each.

    Zeros must stand where words or regions are padded. Differentiable once.
    """
    with full_precision(regions):
        logits: tuple[Tensor, Tensor] = _PairLogits.apply(
            regions,
            words,
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
        work: PairWork,
        kind: type[PaperWeights] | type[AuthorsWeights],
        keep: bool,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        scales = list(map(inverse_lengths, (regions, words))) if kind is PaperWeights else []
        ctx.save_for_backward(regions, words, *weights, *scales)
        ctx.work, ctx.kind = work, kind
        tensors = PairInputs.of(regions, words, scales, work, kind(*weights))
        all_logits = [weights[0].new_empty(len(regions), len(words)) for _ in range(2)]
        kept = work.kept(regions.shape[-1], weights[0].dtype) if keep else None
        # Of each block: the scores if there was room, and its two directions.
        ctx.results = []
        for block in work.blocks:
            scores = tensors.scores(block)
            # Of all that may be kept they save the most work for their size.
            kept_scores = None if kept is None else kept.copy(scores)
            logits = attention_logits(scores, tensors.variant, *tensors.masks(block))
            directions = []
            for direction in tensors.directions(block, _exponentials(logits)):
                result = direction.forward(kept)
                logits_OI = result.aggregated.logits
                all_logits[direction.head][block.images, block.reports] = (
                    logits_OI if direction.words_attend else logits_OI.T
                )
                directions.append(result)
            if keep:
                ctx.results.append((kept_scores, directions))
        return all_logits[0], all_logits[1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d_logits_BA: Tensor) -> tuple[Any, ...]:
        regions, words, *rest = ctx.saved_tensors
        weights, scales = rest[: len(ctx.kind._fields)], rest[len(ctx.kind._fields) :]
        with full_precision(regions):
            tensors = PairInputs.of(regions, words, scales, ctx.work, ctx.kind(*weights))
            dtype = weights[0].dtype
            d_regions, d_words = (
                torch.zeros_like(values, dtype=dtype) for values in (regions, words)
            )
            d_weights = [torch.zeros_like(weight) for weight in weights]
            along = [torch.zeros_like(scale) for scale in scales]
            gradients = _Gradients(d_regions, d_words, d_weights, along)
            for block, (kept_scores, results) in zip(ctx.work.blocks, ctx.results, strict=True):
                scores = tensors.scores(block) if kept_scores is None else kept_scores
                d_logits = [each[block.images, block.reports] for each in d_logits_BA]
                _block_backward(block, tensors, scores, results, d_logits, gradients)
            # In `authors` there are no cosines, and no scales.
            totals = (d_regions, regions), (d_words, words)
            for (total, vectors), far, scale in zip(totals, along, scales, strict=False):
                total.addcmul_(vectors, (far * -scale.square())[..., None])
        return d_regions.to(regions.dtype), d_words.to(words.dtype), None, None, None, *d_weights


def _block_backward(
    block: PairBlock,
    tensors: PairInputs,
    scores: Tensor,
    results: list[DirectionResult],
    d_logits_BC: list[Tensor],
    gradients: _Gradients,
) -> None:
    """Add a block's part to the gradients, from what its two directions gave in forward."""
    scores.requires_grad_(tensors.variant == "authors")
    with torch.enable_grad():
        logits = attention_logits(scores, tensors.variant, *tensors.masks(block))
    weights = _exponentials(logits)
    d_regions_BRD = gradients.regions[block.images, : block.regions]
    d_words_CWD = gradients.words[block.reports, : block.words]
    d_weights = []
    directions = tensors.directions(block, weights)
    for direction, left, d_logits in zip(directions, results, d_logits_BC, strict=True):
        if direction.words_attend:
            d_tokens, d_attended, d_logits_OI = d_words_CWD, d_regions_BRD, d_logits
        else:
            d_tokens, d_attended, d_logits_OI = d_regions_BRD, d_words_CWD, d_logits.T
        d_weights_OxITxU = direction.backward(
            left, d_logits_OI, d_tokens, d_attended, gradients.weights
        )
        d_weights_BRCW = (
            d_weights_OxITxU.mT.view_as(scores)
            if direction.words_attend
            else d_weights_OxITxU.unflatten(1, scores.shape[:2]).permute(1, 2, 0, 3)
        )
        d_weights.append(d_weights_BRCW.to(scores.dtype))
    by_word, by_region = weights
    d_by_word, d_by_region = d_weights
    if tensors.variant == "paper":
        # Both are of the same weights, whose memory is free after this.
        d_scores = d_by_word.add_(d_by_region).mul_(by_word)
        along_BRCW = torch.mul(scores, d_scores, out=by_word)
        along_regions, along_words = gradients.along
        along_regions[block.images, : block.regions].add_(along_BRCW.sum(dim=(2, 3)))
        along_words[block.reports, : block.words].add_(along_BRCW.sum(dim=(0, 1)))
        tensors.scale_(d_scores, block)
    else:
        (d_scores,) = torch.autograd.grad(
            logits, scores, (d_by_word.mul_(by_word), d_by_region.mul_(by_region))
        )
    regions_BRD, words_CWD = tensors.products(block)
    d_flat_scores = d_scores.to(regions_BRD.dtype).flatten(2)
    flat_words = words_CWD.flatten(0, 1)
    add_product(d_regions_BRD, d_flat_scores, flat_words.expand(len(regions_BRD), -1, -1))
    d_words_CWD.add_((d_flat_scores.flatten(0, 1).T @ regions_BRD.flatten(0, 1)).view_as(words_CWD))


def _exponentials(logits: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """e to the logits of both directions, which in `paper` are the same."""
    over_regions, over_words = (each.detach() for each in logits)
    by_word = over_regions.exp()
    return by_word, by_word if logits[0] is logits[1] else over_words.exp()

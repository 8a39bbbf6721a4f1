"""Max-pooled contrast of sentences with the regions of every image of the batch."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from distributed_pretrain.losses.blockwise import KEPT_BLOCK_ELEMENTS, blocks
from distributed_pretrain.losses.precision import (
    at_least_float32,
    full_precision,
    unit_vectors,
    whole_float32_products,
    without_columns,
)
from distributed_pretrain.ranks import gather_rows, own_rows, sum_over_ranks, world_size

# B images of this rank, A images of all ranks, R regions, M sentences of the longest report,
# S = B M sentences of this rank, C sentences of one block, N ranks, D dim.


def sentence_region_contrast(
    sentences: Float[Tensor, "batch sentences dim"],
    regions: Float[Tensor, "batch regions dim"],
    *,
    sentence_mask: Bool[Tensor, "batch sentences"],
    sentence_ids: Int[Tensor, "batch sentences"],
    most_sentences: int,
    temperature: float | Float[Tensor, " 1"] = 0.1,
    sentence_weights: Float[Tensor, "batch sentences"] | None = None,
    chunk_size: int | None = None,
    sample_mask: Bool[Tensor, " batch"] | None = None,
    gather: bool = True,
) -> Float[Tensor, ""]:
    """The mean over sentences of (ℓ over images + ℓ over sentences) / 2, at least 0.

    A sentence s of report b(s) meets an image b by its nearest region, softly (multiple-instance
    learning as in phrase grounding; near FILIP's, which takes the plain maximum of words):

        f(s, b) = log mean_r e^{cos(z_s, z_br) / τ}
        ℓ over images    = -log( e^{f(s, b(s))} / Σ_b e^{f(s, b)} )
        ℓ over sentences = -log( e^{f(s, b(s))} / (e^{f(s, b(s))} + Σ_s' e^{f(s', b(s))}) )

    Equal `sentence_ids` are the same text, which is no negative of itself: the first sum leaves out
    other images whose report holds s, the second runs over the sentences that the report b(s)
    does not hold. No attention of a sentence's own stands between it and the regions, and other
    images answer too: regions that do not depend on the image give ln(number of images).

    With several ranks the sums run over all of them and the mean over this rank's sentences. Ranks
    exchange their regions, the ids of up to `most_sentences` sentences a report, and one number an
    image; they need the same number of rows, not of sentences. `gather=False` compares within the
    rank and communicates nothing.

    `sentence_weights` turn the mean into a weighted one, and get no gradient. Masked sentences, and
    samples whose `sample_mask` is False, are neither rows, columns nor counted; without any
    real sentence the loss is 0. More than `most_sentences` are a ValueError, for one rank as for
    several. `chunk_size` sentences at a time meet all regions, and again in
    backward: memory O(chunk x A x R) instead of O(S x A x R).
    """
    with full_precision(sentences):
        if sample_mask is not None:
            sentence_mask = sentence_mask & sample_mask[:, None]
        batch, longest = sentence_mask.shape
        across = gather and world_size() > 1
        if longest > most_sentences:
            raise ValueError(
                f"{longest} sentences a report, more than the most of {most_sentences}"
            )
        image_mask_A, ids_AM = sample_mask, sentence_ids.masked_fill(~sentence_mask, _NO_SENTENCE)
        own_ids_S, mask_S = ids_AM.flatten(), sentence_mask.flatten()
        regions_ARD = unit_vectors(regions, _like(regions, sample_mask))
        if across:
            ids_AM = gather_rows(F.pad(ids_AM, (0, most_sentences - longest), value=_NO_SENTENCE))
            regions_ARD = gather_rows(regions_ARD)
            image_mask_A = None if sample_mask is None else gather_rows(sample_mask)
        own = own_rows(batch) if across else slice(0, batch)
        own_image_S = torch.arange(own.start, own.stop, device=regions.device)
        own_image_S = own_image_S.repeat_interleave(longest)[:, None]
        held_SA = _held_by(own_ids_S, ids_AM)

        sentences_SD = unit_vectors(sentences, sentence_mask).flatten(0, 1)
        fit_SA = pooled_fit(sentences_SD / temperature, regions_ARD, chunk_size=chunk_size)
        fit_S = fit_SA.gather(1, own_image_S)[:, 0]
        others_SA = ~held_SA if image_mask_A is None else ~held_SA & image_mask_A
        images_S = without_columns(fit_SA, others_SA.scatter(1, own_image_S, True)).logsumexp(dim=1)
        # What an image's report does not hold; of every rank a part of the sum.
        unsaid_A = without_columns(fit_SA, ~held_SA & mask_S[:, None]).logsumexp(dim=0)
        if across:
            unsaid_A = gather_rows(unsaid_A[None]).logsumexp(dim=0)
        sentences_S = torch.logaddexp(fit_S, unsaid_A[own_image_S[:, 0]])
        loss_S = (images_S + sentences_S) / 2 - fit_S
        weights_S = torch.ones_like(loss_S)
        if sentence_weights is not None:
            weights_S = at_least_float32(sentence_weights.detach()).flatten()
        weights_S = torch.where(mask_S, weights_S, 0.0)
        # As `mean_over_samples`, of sentences: each rank divides by the mean weight over the ranks.
        total = weights_S.sum()
        if across:
            total = sum_over_ranks(total) / world_size()
        smallest = torch.finfo(total.dtype).tiny
        return (weights_S * torch.where(mask_S, loss_S, 0.0)).sum() / total.clamp(min=smallest)


def pooled_fit(
    rows: Float[Tensor, "rows dim"],
    regions: Float[Tensor, "images regions dim"],
    *,
    chunk_size: int | None = None,
) -> Float[Tensor, "rows images"]:
    """log mean_r e^{<row, region r of image>} of every row and image.

    `chunk_size` rows at a time are compared with all regions, and again in backward; without it
    the products are kept, once, for backward. Differentiable once.
    """
    fit: Tensor = _PooledFit.apply(rows, regions, chunk_size)
    return fit


class _PooledFit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_SD: Tensor, regions_ARD: Tensor, chunk_size: int | None) -> Tensor:
        images, regions = regions_ARD.shape[:2]
        columns_KD = regions_ARD.flatten(0, 1)
        size = chunk_size or max(1, KEPT_BLOCK_ELEMENTS // max(1, len(columns_KD)))
        kept_SK = rows_SD.new_empty(len(rows_SD), len(columns_KD)) if chunk_size is None else None
        buffer_CK = rows_SD.new_empty(min(size, len(rows_SD)), len(columns_KD))
        fit_SA = rows_SD.new_empty(len(rows_SD), images)
        for block in blocks(len(rows_SD), size):
            products_CK = (
                buffer_CK[: block.stop - block.start] if kept_SK is None else kept_SK[block]
            )
            _write_products(rows_SD[block], columns_KD, products_CK)
            products_CAR = products_CK.view(-1, images, regions)
            largest_CA = products_CAR.amax(dim=2)
            exponentials_CAR = buffer_CK[: block.stop - block.start].view_as(products_CAR)
            torch.sub(products_CAR, largest_CA[..., None], out=exponentials_CAR).exp_()
            fit_SA[block] = exponentials_CAR.sum(dim=2).log_().add_(largest_CA)
        fit_SA -= math.log(regions)
        ctx.block_rows = size
        ctx.save_for_backward(rows_SD, regions_ARD, kept_SK, fit_SA)
        return fit_SA

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_fit_SA: Tensor) -> tuple[Tensor | None, ...]:
        rows_SD, regions_ARD, kept_SK, fit_SA = ctx.saved_tensors
        images, regions = regions_ARD.shape[:2]
        columns_KD = regions_ARD.flatten(0, 1)
        d_rows_SD, d_columns_KD = torch.empty_like(rows_SD), torch.zeros_like(columns_KD)
        buffer_CK = rows_SD.new_empty(min(ctx.block_rows, len(rows_SD)), len(columns_KD))
        for block in blocks(len(rows_SD), ctx.block_rows):
            d_products_CK = buffer_CK[: block.stop - block.start]
            if kept_SK is None:
                _write_products(rows_SD[block], columns_KD, d_products_CK)
                products_CK = d_products_CK
            else:
                products_CK = kept_SK[block]
            d_products_CAR = d_products_CK.view(-1, images, regions)
            # The softmax over regions times the gradient: its sum is that of a mean, hence ln R.
            normaliser_CA = fit_SA[block, :, None] + math.log(regions)
            torch.sub(products_CK.view_as(d_products_CAR), normaliser_CA, out=d_products_CAR)
            d_products_CAR.exp_().mul_(d_fit_SA[block, :, None])
            torch.mm(d_products_CK, columns_KD, out=d_rows_SD[block])
            d_columns_KD.addmm_(d_products_CK.T, rows_SD[block])
        return d_rows_SD, d_columns_KD.view_as(regions_ARD), None


def _write_products(rows_CD: Tensor, columns_KD: Tensor, out_CK: Tensor) -> None:
    with whole_float32_products():
        torch.mm(rows_CD, columns_KD.T, out=out_CK)


# The id of padding: ids of texts are not negative.
_NO_SENTENCE = -1


def _held_by(
    ids_S: Int[Tensor, " sentences"], reports_AM: Int[Tensor, "images longest"]
) -> Bool[Tensor, "sentences images"]:
    """Whether an image's report holds a sentence of this text."""
    # Equal ids share the first place among the sorted; a table says which report has which place.
    # What is none of them goes to the last place, behind all.
    nobody = len(ids_S)
    behind_all = ids_S.new_full((1,), torch.iinfo(ids_S.dtype).max)
    sorted_S = torch.cat([ids_S.sort().values, behind_all])
    place_AM = torch.searchsorted(sorted_S, reports_AM)
    place_AM = torch.where(sorted_S[place_AM] == reports_AM, place_AM, nobody)
    table_AS = torch.zeros(len(reports_AM), nobody + 1, dtype=torch.bool, device=ids_S.device)
    table_AS.scatter_(1, place_AM, True)
    return table_AS[:, torch.searchsorted(sorted_S, ids_S)].T


def _like(values: Tensor, sample_mask: Tensor | None) -> Tensor | None:
    return None if sample_mask is None else sample_mask[:, None].expand(values.shape[:2])

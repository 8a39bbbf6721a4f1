"""MGCA's token-wise alignment of regions and words within each pair (Wang et al. 2022)."""

from __future__ import annotations

from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distributed_pretrain.losses.local import local_report_loss
from distributed_pretrain.losses.precision import (
    at_least_float32,
    full_precision,
    unit_vectors,
    without_columns,
)

# B batch, R regions, W words, D dim.


def token_alignment_loss(
    regions: Float[Tensor, "batch regions dim"],
    words: Float[Tensor, "batch words dim"],
    word_mask: Bool[Tensor, "batch words"],
    *,
    region_weights: Float[Tensor, "batch regions"],
    word_weights: Float[Tensor, "batch words"],
    temperature: float = 0.1,
    sample_mask: Bool[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    """The mean over samples of (image side + report side) / 2, at least 0 (CTA).

    The report side: each word attends to the regions of its own image, with the softmax of
    cosine / τ, and o_j is the sum of the regions' unit vectors so weighted.
    Then Σ_j w_j (ℓ_j + ℓ'_j) / 2, where ℓ_j is the cross entropy of cos(word j, o_k) / τ over k,
    taken at j, and ℓ'_j that with the sides exchanged. The image side likewise, for regions that
    attend to words.

    The weights sum to 1 over a sample's tokens (see `clipped_weights`) and get no gradient. Padded
    words are attended to by nobody and are no negatives.

    The paper learns projections for this attention and averages the sides; the authors' code has
    the attention written here by default, and sums the sides, which doubles the loss.
    """
    with full_precision(regions):
        region_mask = torch.ones(regions.shape[:2], dtype=torch.bool, device=regions.device)
        if sample_mask is not None:
            region_mask = region_mask & sample_mask[:, None]
            word_mask = word_mask & sample_mask[:, None]
        regions_BRD = unit_vectors(regions, region_mask)
        words_BWD = unit_vectors(words, word_mask)
        cosine_BWR = words_BWD @ regions_BRD.mT / temperature
        to_regions_BWR = cosine_BWR.softmax(dim=2)
        to_words_BRW = without_columns(cosine_BWR.mT, word_mask[:, None]).softmax(dim=2)
        # Within a pair each token against its own counterpart: the same function as LoVT's eqs
        # 10-12, there for sentences.
        side = partial(local_report_loss, temperature=temperature, sample_mask=sample_mask)
        report_side = side(words_BWD, to_regions_BWR @ regions_BRD, word_mask, word_weights)
        image_side = side(regions_BRD, to_words_BRW @ words_BWD, region_mask, region_weights)
        return (image_side + report_side) / 2


@torch.no_grad()
def clipped_weights(
    attention: Float[Tensor, "batch tokens"], token_mask: Bool[Tensor, "batch tokens"]
) -> Float[Tensor, "batch tokens"]:
    """Token weights that sum to 1 over a sample's real tokens, and are 0 on padding.

    `attention` is what the CLS token pays each token. It is clipped to its quantiles 0.1 and 0.9
    over the sample's own real tokens (mask True; linear interpolation), so that no token counts
    for everything or nothing, and divided by its sum. In at least float32, without gradient.
    """
    values_BT = at_least_float32(attention)
    # Padding sorts to the end. torch's nanquantile sorts twice, and no compiler takes it.
    sorted_BT = values_BT.masked_fill(~token_mask, torch.inf).sort(dim=1).values
    last_B1 = (token_mask.sum(dim=1, keepdim=True) - 1).clamp(min=0).to(values_BT.dtype)
    low_B1, high_B1 = (_quantile(sorted_BT, share * last_B1) for share in (0.1, 0.9))
    clipped_BT = torch.where(token_mask, values_BT.clamp(low_B1, high_B1), 0.0)
    total_B1 = clipped_BT.sum(dim=1, keepdim=True)
    return clipped_BT / total_B1.clamp(min=torch.finfo(total_B1.dtype).tiny)


def _quantile(
    sorted_values: Float[Tensor, "batch tokens"], position: Float[Tensor, "batch 1"]
) -> Float[Tensor, "batch 1"]:
    """Each row's value at a position between two of its values, in between them."""
    below, above = position.floor(), position.ceil()
    low, high = (sorted_values.gather(1, each.long()) for each in (below, above))
    return low.lerp(high, position - below)

"""The local losses of LoVT and LIMITR: regions, sentences or words and what they attend to."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distributed_pretrain.losses.contrastive import cross_entropies_of_diagonal
from distributed_pretrain.losses.precision import (
    at_least_float32,
    full_precision,
    unit_vectors,
    zero_where_padded,
)
from distributed_pretrain.ranks import mean_over_samples

# B batch, K regions (rows x columns of the grid), S sentences, T regions or words, D dim.


def positiveness(
    grid: tuple[int, int],
    *,
    sharpness: float = 1.0,
    cutoff: float = 0.5,
    device: torch.device | None = None,
) -> Float[Tensor, "regions regions"]:
    """p[k, l]: how far region l counts as a positive of region k; each row sums to 1 (eq 9).

    p[k, l] is proportional to e^{-d/β} where d <= T and 0 elsewhere, with d the distance of the
    two regions on the row-major `grid` (rows, columns) over the length of its diagonal, β =
    `sharpness` and T = `cutoff`. A cutoff of 0 gives the identity. Float64.
    """
    rows, columns = grid
    region_K = torch.arange(rows * columns, device=device)
    y_K, x_K = region_K // columns, region_K % columns
    squared_KK = (y_K[:, None] - y_K) ** 2 + (x_K[:, None] - x_K) ** 2
    # From integers: regions at exactly the cutoff must not fall on either side by rounding.
    distance_KK = (squared_KK.double() / (rows**2 + columns**2)).sqrt()
    weight_KK = torch.where(distance_KK <= cutoff, torch.exp(-distance_KK / sharpness), 0.0)
    return weight_KK / weight_KK.sum(dim=1, keepdim=True)


def local_image_loss(
    regions: Float[Tensor, "batch regions dim"],
    attended: Float[Tensor, "batch regions dim"],
    region_weights: Float[Tensor, "batch regions"],
    *,
    grid: tuple[int, int],
    temperature: float | Float[Tensor, " 1"] = 0.3,
    sharpness: float = 1.0,
    cutoff: float = 0.5,
    sample_mask: Bool[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    """The mean over samples of Σ_k w_k (ℓ_k + ℓ'_k) / 2 (eqs 6-8), at least the entropy of p.

    ℓ_k is the cross entropy between `positiveness` p[k, :] and the softmax over l of
    cos(region k, attended l) / τ; ℓ'_k has the two sides exchanged. `attended` are the regions
    as the report sees them. No gradient flows into `region_weights`.
    """
    with full_precision(regions):
        weights_BK = at_least_float32(region_weights.detach())
        region_mask = None
        if sample_mask is not None:
            region_mask = sample_mask[:, None].expand_as(weights_BK)
            weights_BK = zero_where_padded(weights_BK, sample_mask)
        regions_BKD = unit_vectors(regions, region_mask)
        attended_BKD = unit_vectors(attended, region_mask)
        logits_BKK = regions_BKD @ attended_BKD.mT / temperature
        p_KK = positiveness(grid, sharpness=sharpness, cutoff=cutoff, device=regions.device)
        p_KK = p_KK.to(logits_BKK.dtype)
        # Rows of p sum to 1, so -Σ_l p log softmax(x)_l = logsumexp(x) - Σ_l p x_l. For ℓ' the
        # logits are transposed, p is not (its rows are normalised, so it is not symmetric).
        to_attended_BK = logits_BKK.logsumexp(dim=2) - (p_KK * logits_BKK).sum(dim=2)
        to_regions_BK = logits_BKK.logsumexp(dim=1) - (p_KK.T * logits_BKK).sum(dim=1)
        loss_BK = weights_BK * (to_attended_BK + to_regions_BK) / 2
        return mean_over_samples(loss_BK.sum(dim=1), sample_mask)


def local_report_loss(
    sentences: Float[Tensor, "batch sentences dim"],
    attended: Float[Tensor, "batch sentences dim"],
    sentence_mask: Bool[Tensor, "batch sentences"],
    sentence_weights: Float[Tensor, "batch sentences"],
    *,
    temperature: float | Float[Tensor, " 1"] = 0.3,
    sample_mask: Bool[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    """The mean over samples of Σ_m w_m (ℓ_m + ℓ'_m) / 2 (eqs 10-12), at least 0.

    ℓ_m = -log softmax over m' of cos(sentence m, attended m') / τ, taken at m; ℓ'_m has the two
    sides exchanged. `attended` are the sentences as the image sees them. Padded sentences
    are neither rows nor columns, so a report of one sentence gives exactly 0. No gradient flows
    into `sentence_weights`.
    """
    with full_precision(sentences):
        if sample_mask is not None:
            sentence_mask = sentence_mask & sample_mask[:, None]
        sentences_BSD = unit_vectors(sentences, sentence_mask)
        attended_BSD = unit_vectors(attended, sentence_mask)
        logits_BSS = sentences_BSD @ attended_BSD.mT / temperature
        both_BS = cross_entropies_of_diagonal(logits_BSS, sentence_mask)
        weights_BS = torch.where(sentence_mask, at_least_float32(sentence_weights.detach()), 0.0)
        return mean_over_samples((weights_BS * both_BS / 2).sum(dim=1), sample_mask)


def internal_loss(
    tokens: Float[Tensor, "batch tokens dim"],
    attended: Float[Tensor, "batch tokens dim"],
    token_mask: Bool[Tensor, "batch tokens"] | None = None,
    *,
    weights: Float[Tensor, "batch tokens"] | None = None,
    reduction: Literal["mean", "sum"] = "mean",
    temperature: float | Float[Tensor, " 1"] = 0.1,
    sample_mask: Bool[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    """LIMITR's eq 6, one side of it: the mean over samples of Σ_i ω_i (ℓ_i + ℓ'_i), at least 0.

    ℓ_i = -log softmax over j of cos(v_i, m_j) / τ, taken at i, where v are `tokens` (regions, or
    words) and m what they attend to; ℓ'_i has the two exchanged. The supplement writes
    a_i(v_i, m_j), which is a vector; the scalar meant is the cosine.

    ω is 1/N for the N real tokens, or `weights`, which sum to 1 in each sample and get no
    gradient. `reduction="sum"` takes N times as much, which without weights is eq 6 to the
    letter: some 4,250 for 361 untrained regions. Padded tokens are neither rows nor columns, so a
    sample with one token gives exactly 0.
    """
    if token_mask is None:
        token_mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    if sample_mask is not None:
        token_mask = token_mask & sample_mask[:, None]
    with full_precision(tokens):
        logits_BTT = unit_vectors(tokens, token_mask) @ unit_vectors(attended, token_mask).mT
        logits_BTT = logits_BTT / temperature
        loss_BT = cross_entropies_of_diagonal(logits_BTT, token_mask)
        count_B1 = token_mask.sum(dim=1, keepdim=True).clamp(min=1).to(loss_BT.dtype)
        weights_BT = 1 / count_B1 if weights is None else at_least_float32(weights.detach())
        if reduction == "sum":
            weights_BT = weights_BT * count_B1
        loss_B = (torch.where(token_mask, weights_BT, 0.0) * loss_BT).sum(dim=1)
        return mean_over_samples(loss_B, sample_mask)

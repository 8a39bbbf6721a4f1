"""LIMITR's internal loss: regions (or words) against what they attend to, within a pair (eq 6)."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distributed_pretrain.losses.contrastive import cross_entropies_of_diagonal
from distributed_pretrain.losses.precision import at_least_float32, full_precision, unit_vectors
from distributed_pretrain.ranks import mean_over_samples

# B batch, T regions or words of each sample, D dim.


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
    """The mean over samples of Σ_i ω_i (ℓ_i + ℓ'_i) for one side of the pairs, at least 0 (eq 6).

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

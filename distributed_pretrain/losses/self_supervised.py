"""Losses between two augmented views of the same image: SimCLR's and BYOL's."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distributed_pretrain.losses.blockwise import row_log_normalisers
from distributed_pretrain.losses.precision import full_precision, unit_vectors
from distributed_pretrain.ranks import gather_rows, mean_over_samples, own_rows

# B images of this rank, V = 2 B views of this rank, A views of all ranks, D dim.


def nt_xent_loss(
    first: Float[Tensor, "batch dim"],
    second: Float[Tensor, "batch dim"],
    *,
    temperature: float = 0.1,
    chunk_size: int | None = None,
    sample_mask: Bool[Tensor, " batch"] | None = None,
    gather: bool = True,
) -> Float[Tensor, ""]:
    """SimCLR's NT-Xent (Chen et al. 2020, eq 1): the mean of ℓ over all views, at least 0.

    ℓ_i = -log( e^{cos(z_i, z_i')/τ} / Σ_{k != i} e^{cos(z_i, z_k)/τ} ), where z_i' is the other
    view of the same image, k runs over both views of every image and τ = `temperature`. With
    identical embeddings it is ln(2 images - 1).

    With several ranks k runs over the views of all, with gradient, and the mean over this rank's;
    `gather=False` keeps to the views of this rank. `chunk_size` is as in `global_contrastive_loss`,
    counted in views.
    """
    with full_precision(first):
        first_BD, second_BD = unit_vectors(first, sample_mask), unit_vectors(second, sample_mask)
        views_VD = torch.cat([first_BD, second_BD])
        view_mask = None if sample_mask is None else torch.cat([sample_mask, sample_mask])
        own = own_rows(len(views_VD)) if gather else slice(0, len(views_VD))
        normaliser_V = row_log_normalisers(
            views_VD / temperature,
            gather_rows(views_VD) if gather else views_VD,
            column_mask=gather_rows(view_mask) if gather and view_mask is not None else view_mask,
            own_column=torch.arange(own.start, own.stop, device=first.device),
            chunk_size=chunk_size,
        )
        positive_B = (first_BD * second_BD).sum(dim=1) / temperature
        of_first_B, of_second_B = normaliser_V.chunk(2)
        loss_B = (of_first_B + of_second_B) / 2 - positive_B
        return mean_over_samples(loss_B, sample_mask, across_ranks=gather)


def byol_loss(
    first_prediction: Float[Tensor, "batch dim"],
    second_prediction: Float[Tensor, "batch dim"],
    first_target: Float[Tensor, "batch dim"],
    second_target: Float[Tensor, "batch dim"],
    *,
    sample_mask: Bool[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    """BYOL's loss (Grill et al. 2020, eq 2 and its mirror image), from 0 to 8.

    The mean over images of |q_1 - z_2|² + |q_2 - z_1|² between unit vectors, which is
    4 - 2 cos(q_1, z_2) - 2 cos(q_2, z_1): each view's prediction q against the other view's target
    z. No gradient flows into the targets, the teacher's projections.
    """
    with full_precision(first_prediction):
        first_target, second_target = first_target.detach(), second_target.detach()
        loss_B = (
            4
            - 2 * _cosine(first_prediction, second_target, sample_mask)
            - 2 * _cosine(second_prediction, first_target, sample_mask)
        )
        return mean_over_samples(loss_B, sample_mask)


def _cosine(one: Tensor, other: Tensor, sample_mask: Tensor | None) -> Tensor:
    return (unit_vectors(one, sample_mask) * unit_vectors(other, sample_mask)).sum(dim=1)

"""The global contrastive loss between images and reports (LoVT, eqs 3-5)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from distributed_pretrain.losses.collectives import gather_rows, mean_over_samples, world_size
from distributed_pretrain.losses.precision import (
    at_least_float32,
    full_precision,
    unit_vectors,
    without_columns,
)

# B rows of this rank, A rows of all ranks, C rows of one chunk.


def global_contrastive_loss(
    image: Float[Tensor, "batch dim"],
    report: Float[Tensor, "batch dim"],
    *,
    temperature: float | Float[Tensor, " 1"] = 0.1,
    image_to_report_weight: float = 0.75,
    chunk_size: int | None = None,
    sample_mask: Bool[Tensor, " batch"] | None = None,
    gather: bool = True,
) -> Float[Tensor, ""]:
    """The mean over samples of λ ℓ(image -> reports) + (1 - λ) ℓ(report -> images), at least 0.

    Eqs 3-5 with ℓ_i = -log( e^{cos(a_i, b_i)/τ} / Σ_j e^{cos(a_i, b_j)/τ} ), λ =
    `image_to_report_weight` and τ = `temperature`.

    With several ranks the sums over j run over all of them, and the mean over this rank's
    samples: the average of the ranks' losses, and of their gradients, is that of one process
    with the whole batch. `gather=False` keeps the negatives of this rank only and communicates
    nothing.

    `sample_mask` (True = real) takes samples out of rows, columns and counts; ranks may hold
    different numbers of real samples, but the same number of rows. `chunk_size` rows at a time
    are compared with all columns, and again in backward: memory O(chunk x all samples), the
    same loss and gradient. Computed in at least float32.
    """
    with full_precision(image):
        image_BD = unit_vectors(image, sample_mask)
        report_BD = unit_vectors(report, sample_mask)
        positive_B = (image_BD * report_BD).sum(dim=-1) / temperature
        if chunk_size is None and not (gather and world_size() > 1):
            logits_BB = image_BD @ report_BD.T / temperature
            image_normaliser_B = without_columns(logits_BB, sample_mask).logsumexp(dim=1)
            report_normaliser_B = without_columns(logits_BB.T, sample_mask).logsumexp(dim=1)
        else:
            all_images_AD, all_reports_AD, all_mask_A = image_BD, report_BD, sample_mask
            if gather:
                all_images_AD, all_reports_AD = gather_rows(image_BD), gather_rows(report_BD)
                all_mask_A = None if sample_mask is None else gather_rows(sample_mask)
            image_normaliser_B = _log_normaliser(
                image_BD, all_reports_AD, all_mask_A, temperature, chunk_size
            )
            report_normaliser_B = _log_normaliser(
                report_BD, all_images_AD, all_mask_A, temperature, chunk_size
            )
        loss_B = (
            image_to_report_weight * image_normaliser_B
            + (1 - image_to_report_weight) * report_normaliser_B
            - positive_B
        )
        return mean_over_samples(loss_B, sample_mask, across_ranks=gather)


def symmetric_cross_entropy(
    similarity: Float[Tensor, "batch batch"],
    *,
    temperature: float | Float[Tensor, " 1"],
    sample_mask: Bool[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    """Row plus column cross entropy of a square matrix whose diagonal holds the true pairs.

    Rows are images, columns reports; each of the two is a mean over the real samples, which
    `sample_mask` names (True = real). Computed in at least float32.
    """
    with full_precision(similarity):
        logits_BB = at_least_float32(similarity) / temperature
        if sample_mask is not None:
            logits_BB = torch.where(sample_mask[:, None] & sample_mask, logits_BB, 0.0)
        rows_B = without_columns(logits_BB, sample_mask).logsumexp(dim=1)
        columns_B = without_columns(logits_BB.T, sample_mask).logsumexp(dim=1)
        loss_B = rows_B + columns_B - 2 * logits_BB.diagonal()
        return mean_over_samples(loss_B, sample_mask, across_ranks=False)


def _log_normaliser(
    rows_BD: Tensor,
    columns_AD: Tensor,
    column_mask_A: Tensor | None,
    temperature: float | Tensor,
    chunk_size: int | None,
) -> Tensor:
    """log Σ_j e^{<row, column_j>/τ} of each row."""
    if chunk_size is None:
        return _log_normaliser_of_chunk(rows_BD, columns_AD, column_mask_A, temperature)
    chunks = [
        checkpoint(
            _log_normaliser_of_chunk,
            rows_CD,
            columns_AD,
            column_mask_A,
            temperature,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        for rows_CD in rows_BD.split(chunk_size)
    ]
    return torch.cat(chunks)


def _log_normaliser_of_chunk(
    rows_CD: Tensor,
    columns_AD: Tensor,
    column_mask_A: Tensor | None,
    temperature: float | Tensor,
) -> Tensor:
    logits_CA = rows_CD @ columns_AD.T / temperature
    return without_columns(logits_CA, column_mask_A).logsumexp(dim=1)

"""The global contrastive loss between images and reports (LoVT, eqs 3-5)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distributed_pretrain.losses.blockwise import log_normalisers, row_log_normalisers
from distributed_pretrain.losses.precision import (
    at_least_float32,
    full_precision,
    unit_vectors,
    without_columns,
)
from distributed_pretrain.ranks import gather_rows, mean_over_samples, world_size

# B rows of this rank, A rows of all ranks, D dim.


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

    With several ranks the sums over j run over all of them, and the mean over this rank's samples.
    `gather=False` keeps the negatives of this rank only and communicates nothing.
    Ranks may hold different numbers of real samples, but the same number of rows.

    Without `chunk_size` the matrix of all similarities is kept for backward. With it, so many rows
    at a time are compared with all columns, and again in backward: four matrix products instead of
    three. Any size from some 128 to 2,048 rows is about as quick, so choose it by memory: two
    blocks of chunk_size x all samples (512 x 32,768 in float32: 128 MiB), beside several copies of
    the embeddings.
    """
    with full_precision(image):
        image_BD = unit_vectors(image, sample_mask)
        report_BD = unit_vectors(report, sample_mask)
        positive_B = (image_BD * report_BD).sum(dim=-1) / temperature
        if gather and world_size() > 1:
            all_mask_A = None if sample_mask is None else gather_rows(sample_mask)
            all_images_AD, all_reports_AD = gather_rows(image_BD), gather_rows(report_BD)
            image_normaliser_B, report_normaliser_B = (
                row_log_normalisers(
                    rows_BD / temperature, columns_AD, column_mask=all_mask_A, chunk_size=chunk_size
                )
                for rows_BD, columns_AD in (
                    (image_BD, all_reports_AD),
                    (report_BD, all_images_AD),
                )
            )
        else:
            image_normaliser_B, report_normaliser_B = log_normalisers(
                image_BD / temperature,
                report_BD,
                row_mask=sample_mask,
                column_mask=sample_mask,
                chunk_size=chunk_size,
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
    across_ranks: bool = False,
) -> Float[Tensor, ""]:
    """Row plus column cross entropy of a square matrix whose diagonal holds the true pairs.

    Rows are images, columns reports; each of the two is a mean over the real samples. With
    `across_ranks` the ranks' matrices count by their real samples (see `mean_over_samples`).
    """
    with full_precision(similarity):
        logits_BB = at_least_float32(similarity) / temperature
        if sample_mask is not None:
            logits_BB = torch.where(sample_mask[:, None] & sample_mask, logits_BB, 0.0)
        loss_B = cross_entropies_of_diagonal(logits_BB, sample_mask)
        return mean_over_samples(loss_B, sample_mask, across_ranks=across_ranks)


def cross_entropies_of_diagonal(
    logits: Float[Tensor, "*rows tokens tokens"], mask: Bool[Tensor, "*rows tokens"] | None
) -> Float[Tensor, "*rows tokens"]:
    """Row plus column cross entropy of each token with its own counterpart, on the diagonal.

    Tokens whose mask is False are neither rows nor columns of the others; their own mean nothing.
    """
    columns = None if mask is None else mask.unsqueeze(-2)
    over_columns = without_columns(logits, columns).logsumexp(dim=-1)
    over_rows = without_columns(logits.mT, columns).logsumexp(dim=-1)
    return over_columns + over_rows - 2 * logits.diagonal(dim1=-2, dim2=-1)

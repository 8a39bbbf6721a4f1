"""Contrast of pairs whose similarity is not a product of two vectors, on one rank or over all."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from distributed_pretrain.batch import pad_to
from distributed_pretrain.losses.contrastive import symmetric_cross_entropy
from distributed_pretrain.losses.precision import (
    at_least_float32,
    full_precision,
    without_columns,
)
from distributed_pretrain.ranks import gather_numbers, gather_rows, mean_over_samples, own_rows

# B images of this rank, A reports of all ranks, N ranks, T tokens, D dim.


def external_loss(
    similarity: Float[Tensor, "batch all_samples"],
    *,
    temperature: float | Float[Tensor, " 1"],
    sample_mask: Bool[Tensor, " batch"] | None = None,
    gather: bool = True,
) -> Float[Tensor, ""]:
    """Row plus column cross entropy of all pairs, each a mean over samples, at least 0.

    With several ranks `similarity` holds this rank's images against the reports of all ranks
    (see `gather_tokens`), so that every pair is compared once, by one rank. The columns' sums
    over images are completed by exchanging their logarithms, N x A numbers. In one process it is
    `symmetric_cross_entropy`.

    `gather=False` is that of this rank's own square, and depends on how samples are spread over
    ranks; its average over the ranks is still a mean over all samples.
    """
    if not gather:
        return symmetric_cross_entropy(
            similarity, temperature=temperature, sample_mask=sample_mask, across_ranks=True
        )
    with full_precision(similarity):
        logits_BA = at_least_float32(similarity) / temperature
        all_mask_A = None
        if sample_mask is not None:
            all_mask_A = gather_rows(sample_mask)
            logits_BA = torch.where(sample_mask[:, None] & all_mask_A, logits_BA, 0.0)
        rows_B = without_columns(logits_BA, all_mask_A).logsumexp(dim=1)
        own_columns_A = without_columns(logits_BA.T, sample_mask).logsumexp(dim=1)
        columns_A = gather_rows(own_columns_A[None]).logsumexp(dim=0)
        own = own_rows(len(logits_BA))
        loss_B = rows_B + columns_A[own] - 2 * logits_BA[:, own].diagonal()
        return mean_over_samples(loss_B, sample_mask)


def gather_tokens(
    tokens: Shaped[Tensor, "batch tokens ..."], longest: int | None = None
) -> Shaped[Tensor, "all_samples longest ..."]:
    """The words of all ranks' reports, or their mask, padded to the longest, with gradient.

    `longest` is the largest number of tokens that any rank has, where the host knows it; otherwise
    it waits for the device to tell.

    A x T x D numbers to every rank, and as many back: 229 MB for 768 reports of 97 words and 768
    dimensions in float32, half of it in bfloat16. The regions would be four to eight times as much,
    which is why they stay.
    """
    if longest is None:
        longest = max(gather_numbers([tokens.shape[1]], tokens.device))[0]
    return gather_rows(pad_to(tokens, (longest, *tokens.shape[2:])))

"""Binary cross entropy over findings of which some are unknown."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from distributed_pretrain.losses.precision import at_least_float32, full_precision
from distributed_pretrain.ranks import mean_over_samples


def multi_label_loss(
    logits: Float[Tensor, "batch classes"],
    labels: Float[Tensor, "batch classes"],
    *,
    sample_mask: Bool[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    """The mean of -y ln σ(x) - (1 - y) ln(1 - σ(x)) over the known labels, at least 0.

    Known are labels from 0 to 1. NaN (not mentioned) and negative ones (CheXpert's -1, uncertain)
    are not, nor are those of samples whose `sample_mask` is False: they get no gradient. Ranks
    know different numbers of labels, and a mean of the ranks' means would favour those that know
    few; the average of what this returns is the mean over the labels of all ranks. Without any it
    is 0.
    """
    with full_precision(logits):
        known = labels >= 0  # NaN is not
        if sample_mask is not None:
            known = known & sample_mask[:, None]
        scores = at_least_float32(logits)
        # Selected before and not after, for an unknown's infinity would give a gradient of NaN.
        losses = F.binary_cross_entropy_with_logits(
            torch.where(known, scores, 0.0),
            torch.where(known, labels.to(scores.dtype), 0.0),
            reduction="none",
        )
        return mean_over_samples(losses.flatten(), known.flatten())

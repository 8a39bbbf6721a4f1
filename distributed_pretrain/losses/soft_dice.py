"""One minus the soft Dice of masks, pooled over a batch."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from distributed_pretrain.losses.precision import at_least_float32, full_precision
from distributed_pretrain.ranks import sum_over_ranks

# The least denominator, as in segmentation_models_pytorch.
_LEAST = 1e-7


def soft_dice_loss(
    logits: Float[Tensor, "batch classes height width"],
    masks: Float[Tensor, "batch classes height width"],
    *,
    sample_mask: Bool[Tensor, " batch"] | None = None,
    classes_apart: bool = True,
    across_ranks: bool = True,
) -> Float[Tensor, ""]:
    """1 - 2 Σ p m / (Σ p + Σ m), p = σ(logits), m in [0, 1]: the mean over classes, in [0, 1].

    The sums are over the pixels of all samples, of all ranks unless `across_ranks` is False, and
    each rank returns the loss of the whole batch. With `classes_apart` False they are over the
    classes too, as LoVT's authors train NIH: one ratio, which the largest finding rules. A ratio
    without a positive pixel counts 0, as in segmentation_models_pytorch, and has no gradient.
    Samples whose `sample_mask` is False are left out.
    """
    with full_precision(logits):
        scores = at_least_float32(logits)
        targets = masks.to(scores.dtype)
        if sample_mask is not None:
            real = sample_mask[:, None, None, None]
            # Selected, and before the sigmoid: what fills up a batch may be NaN.
            scores = torch.where(real, scores, -torch.inf)
            targets = torch.where(real, targets, 0.0)
        probabilities = scores.sigmoid()
        sums = torch.stack(
            [
                (probabilities * targets).sum(dim=(0, 2, 3)),
                probabilities.sum(dim=(0, 2, 3)),
                targets.sum(dim=(0, 2, 3)),
            ]
        )
        if across_ranks:
            sums = sum_over_ranks(sums)
        overlap, predicted, marked = sums if classes_apart else sums.sum(dim=1, keepdim=True)
        losses = 1 - 2 * overlap / (predicted + marked).clamp_min(_LEAST)
        return torch.where(marked > 0, losses, 0.0).mean()

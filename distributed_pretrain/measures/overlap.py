"""How much of a mask was found: the counts of pixels that Dice and its kin are made of."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# True positives, false positives, false negatives: the last dimension of counts.
Counts = Int[Tensor, "*of kinds=3"]


def overlap_counts(
    predicted: Bool[Tensor, "samples classes height width"],
    masks: Bool[Tensor, "samples classes height width"],
) -> Int[Tensor, "samples classes kinds=3"]:
    """Pixels of each image and class that are true positives, false positives, false negatives."""
    hits = (predicted & masks).sum(dim=(2, 3))
    return torch.stack(
        [hits, predicted.sum(dim=(2, 3)) - hits, masks.sum(dim=(2, 3)) - hits], dim=-1
    )


def dice_of(counts: Counts, *, empty: float = 0.0) -> Float[Tensor, "*of"]:
    """2 TP / (2 TP + FP + FN); `empty` where nothing is marked and nothing predicted."""
    hits, wrong, missed = counts.double().unbind(dim=-1)
    return _ratio(2 * hits, 2 * hits + wrong + missed, empty)


def iou_of(counts: Counts, *, empty: float = 0.0) -> Float[Tensor, "*of"]:
    """TP / (TP + FP + FN); `empty` as in `dice_of`."""
    hits, wrong, missed = counts.double().unbind(dim=-1)
    return _ratio(hits, hits + wrong + missed, empty)


def precision_of(counts: Counts) -> Float[Tensor, "*of"]:
    """TP / (TP + FP); 0 where nothing is predicted."""
    hits, wrong, _ = counts.double().unbind(dim=-1)
    return _ratio(hits, hits + wrong, 0.0)


def recall_of(counts: Counts) -> Float[Tensor, "*of"]:
    """TP / (TP + FN); 0 where nothing is marked."""
    hits, _, missed = counts.double().unbind(dim=-1)
    return _ratio(hits, hits + missed, 0.0)


def _ratio(part: Tensor, whole: Tensor, empty: float) -> Tensor:
    return torch.where(whole > 0, part / whole.clamp_min(1), empty)

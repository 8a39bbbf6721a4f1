"""The area under the ROC curve."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def area_under_roc(
    scores: Float[Tensor, "samples classes"], labels: Float[Tensor, "samples classes"]
) -> Float[Tensor, " classes"]:
    """AUROC of each class: the chance that a positive sample scores above a negative one.

    Equal scores count one half (Mann and Whitney's U). Labels that are neither 1 nor 0 (NaN,
    uncertain ones) leave out that sample for that class. A class without a positive or without a
    negative has none: NaN. Scores must not be NaN. Over several ranks, gather both first.
    """
    return torch.stack(
        [_area(scores[:, klass].double(), labels[:, klass]) for klass in range(labels.shape[1])]
    )


def _area(scores: Tensor, labels: Tensor) -> Tensor:
    positive, negative = scores[labels == 1], scores[labels == 0]
    pairs = len(positive) * len(negative)
    if pairs == 0:
        return scores.new_tensor(math.nan)
    ordered = negative.sort().values
    below = torch.searchsorted(ordered, positive, side="left")
    not_above = torch.searchsorted(ordered, positive, side="right")
    return (below + not_above).sum().double() / (2 * pairs)

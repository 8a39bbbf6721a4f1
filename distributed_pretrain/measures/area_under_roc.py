"""The area under the ROC curve."""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def auroc_metrics(areas: Float[Tensor, " classes"], classes: Sequence[str]) -> dict[str, float]:
    """`auroc_<class>` of the classes that have one, and their mean `auroc`; empty if none has."""
    by_class = {
        auroc_name(name): area
        for name, area in zip(classes, areas.tolist(), strict=True)
        if not math.isnan(area)
    }
    if not by_class:
        return {}
    return {"auroc": sum(by_class.values()) / len(by_class), **by_class}


def auroc_name(label: str) -> str:
    """The metric's name for a label: `Pleural Effusion` gives `auroc_pleural_effusion`."""
    return f"auroc_{label.lower().replace(' ', '_')}"


def _area(scores: Tensor, labels: Tensor) -> Tensor:
    positive, negative = scores[labels == 1], scores[labels == 0]
    pairs = len(positive) * len(negative)
    if pairs == 0:
        return scores.new_tensor(math.nan)
    ordered = negative.sort().values
    below = torch.searchsorted(ordered, positive, side="left")
    not_above = torch.searchsorted(ordered, positive, side="right")
    return (below + not_above).sum().double() / (2 * pairs)

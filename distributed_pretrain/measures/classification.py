"""Findings told from images: area under the ROC curve, and a linear head on frozen features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from data_shards.records.study import StudyRecord
from distributed_pretrain.data.labels import label_values

# Strengths of the L2 penalty, relative to the mean loss over samples.
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)


@dataclass(frozen=True)
class ClassificationSet:
    """Features of frozen images with their labels: 1, 0, or NaN where unknown."""

    features: Float[Tensor, "samples channels"]
    labels: Float[Tensor, "samples classes"]


def label_matrix(
    records: Sequence[StudyRecord], classes: Sequence[str]
) -> Float[Tensor, "samples classes"]:
    """Each study's labels: 1, 0, or NaN for those not mentioned or uncertain (-1)."""
    values = torch.tensor([label_values(record, classes) for record in records])
    values = values.double().reshape(len(records), len(classes))
    return torch.where(values < 0, math.nan, values)


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


def linear_auroc(
    training: ClassificationSet, test: ClassificationSet, *, validation_fraction: float = 0.2
) -> Float[Tensor, " classes"]:
    """AUROC of each class on `test` for a logistic regression fitted to `training`.

    Features are standardised with the training samples' statistics; unknown labels take no part.
    For each class the strength of the L2 penalty among `PENALTIES` is the one with the least mean
    cross entropy on the last `validation_fraction` of the training samples, and the regression is
    then fitted again to all of them. The problem is convex and solved to the end by L-BFGS in
    float64, from zero: there is nothing random in it.
    """
    mean = training.features.double().mean(dim=0)
    std = training.features.double().std(dim=0, correction=0).clamp_min(1e-6)
    features = (training.features.double() - mean) / std
    labels = training.labels.double()
    fitted = len(features) - max(1, round(validation_fraction * len(features)))
    held_out = torch.stack(
        [
            _cross_entropy(
                _scores(features[fitted:], _fit(features[:fitted], labels[:fitted], penalty)),
                labels[fitted:],
            )
            for penalty in PENALTIES
        ]
    )
    # A strength for each class: each is a problem of its own in the common fit.
    penalties = torch.tensor(PENALTIES, dtype=torch.float64, device=features.device)
    head = _fit(features, labels, penalties[held_out.argmin(dim=0)])
    return area_under_roc(_scores((test.features.double() - mean) / std, head), test.labels)


def _area(scores: Tensor, labels: Tensor) -> Tensor:
    positive, negative = scores[labels == 1], scores[labels == 0]
    pairs = len(positive) * len(negative)
    if pairs == 0:
        return scores.new_tensor(math.nan)
    ordered = negative.sort().values
    below = torch.searchsorted(ordered, positive, side="left")
    not_above = torch.searchsorted(ordered, positive, side="right")
    return (below + not_above).sum().double() / (2 * pairs)


def _fit(features: Tensor, labels: Tensor, penalty: float | Tensor) -> Tensor:
    """Weights and biases (channels + 1, classes) of the penalised logistic regressions."""
    head = features.new_zeros(features.shape[1] + 1, labels.shape[1]).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [head],
        max_iter=200,
        tolerance_grad=1e-8,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        shrinkage = (penalty * head[:-1].square().sum(dim=0) / 2).sum()
        loss = _cross_entropy(_scores(features, head), labels).sum() + shrinkage
        loss.backward()
        return loss

    optimizer.step(closure)
    return head.detach()


def _scores(features: Tensor, head: Tensor) -> Tensor:
    return features @ head[:-1] + head[-1]


def _cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """The mean over the known labels of each class, 0 without any."""
    known = labels >= 0  # NaN is not
    losses = F.binary_cross_entropy_with_logits(
        scores, torch.where(known, labels, 0.0), reduction="none"
    )
    return torch.where(known, losses, 0.0).sum(dim=0) / known.sum(dim=0).clamp(min=1)

"""Findings told from frozen features by a linear head: its area under the ROC curve."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from data_shards.errors import InputError
from data_shards.records.study import StudyRecord
from distributed_pretrain.data.shards import label_values
from distributed_pretrain.measures.area_under_roc import area_under_roc
from distributed_pretrain.measures.linear import LinearMeasure, LinearSet
from distributed_pretrain.measures.metric import Metric

LINEAR_AUROC = Metric("linear_auroc", "linear AUROC")
# Strengths of the L2 penalty, relative to the mean loss over samples.
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
HELD_OUT = 0.2


class LinearAuroc(LinearMeasure):
    """The AUROC of a logistic regression on the mean of the feature map, for every wanted label."""

    metric = LINEAR_AUROC
    unknown = math.nan

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels asked for, or all that any labelled study has."""
        return self.context.labels or super().classes

    def compute(self) -> dict[str, float]:
        """The areas; empty without labels. Raises InputError for a label that nobody has."""
        known = self.labelled.classes
        if unknown := [name for name in self.classes if name not in known]:
            raise InputError(
                f"evaluate: labels: {unknown[0]!r} is no label of the "
                f"{len(self.labelled.known)} labelled studies: choose among {', '.join(known)}"
            )
        return super().compute()

    def features_of(self, feature_map: Tensor) -> Tensor:
        """The means of the maps."""
        return feature_map.mean(dim=(2, 3))

    def known_of(self, record: StudyRecord) -> dict[str, Tensor]:
        """The study's labels: 1, 0, or NaN for those not mentioned or uncertain (-1)."""
        values = torch.tensor(label_values(record, tuple(record.labels)), dtype=torch.float64)
        return dict(zip(record.labels, torch.where(values < 0, math.nan, values), strict=True))

    def judge(self, training: LinearSet, test: LinearSet) -> Float[Tensor, " classes"]:
        """See `linear_auroc`."""
        return linear_auroc(training, test)


@torch.enable_grad()  # its head is fitted, whoever judges without gradient
def linear_auroc(training: LinearSet, test: LinearSet) -> Float[Tensor, " classes"]:
    """AUROC of each class on `test` for a logistic regression fitted to `training`.

    Features are standardised with the training samples' statistics; unknown labels take no part.
    For each class the strength of the L2 penalty among `PENALTIES` is the one with the least mean
    cross entropy on the last fifth of the training samples, and the regression is then fitted
    again to all of them. The problem is convex and solved to the end by L-BFGS in
    float64, from zero: there is nothing random in it.
    """
    mean = training.features.double().mean(dim=0)
    std = training.features.double().std(dim=0, correction=0).clamp_min(1e-6)
    features = (training.features.double() - mean) / std
    labels = training.targets.double()
    fitted = len(features) - max(1, round(HELD_OUT * len(features)))
    heads = [_fit(features[:fitted], labels[:fitted], penalty) for penalty in PENALTIES]
    held_out = [_cross_entropy(_scores(features[fitted:], head), labels[fitted:]) for head in heads]
    # A strength for each class: each is a problem of its own in the common fit.
    penalties = torch.tensor(PENALTIES, dtype=torch.float64, device=features.device)
    head = _fit(features, labels, penalties[torch.stack(held_out).argmin(dim=0)])
    return area_under_roc(_scores((test.features.double() - mean) / std, head), test.targets)


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

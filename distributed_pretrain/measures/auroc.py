"""The area under the ROC curve of labels that an objective predicts."""

from __future__ import annotations

import torch
from torch import Tensor

from distributed_pretrain.batch import Batch
from distributed_pretrain.measures.area_under_roc import area_under_roc
from distributed_pretrain.measures.base import Context, Measure
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.methods.labels import LabelOutputs
from distributed_pretrain.methods.objective import Objective
from distributed_pretrain.ranks import gather_rows

AUROC = Metric("auroc", "AUROC", headline=True)


class Auroc(Measure):
    """The AUROC of each label that has positives and negatives, and their mean."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []

    @classmethod
    def applies(cls, objective: Objective) -> bool:
        """Where labels are predicted."""
        return objective.predicts_labels

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """`auroc`, and one a label."""
        return AUROC.of_each(self.context.labels)

    def update(self, batch: Batch, outputs: LabelOutputs) -> None:
        """Keep the predictions of all ranks, on the CPU."""
        mask = gather_rows(batch.sample_mask)
        self._logits.append(gather_rows(outputs.logits.float())[mask].cpu())
        self._labels.append(gather_rows(outputs.labels)[mask].cpu())

    def compute(self) -> dict[str, float]:
        """The areas."""
        if not self._logits:
            return {}
        areas = area_under_roc(torch.cat(self._logits), torch.cat(self._labels))
        return AUROC.mean_and_each(self.context.labels, areas.tolist())

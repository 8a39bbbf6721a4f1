"""The objective's own loss, term by term."""

from __future__ import annotations

from typing import Any

import torch

from distributed_pretrain.batch import Batch
from distributed_pretrain.measures.base import Context, Measure
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.methods.objective import Objective
from distributed_pretrain.ranks import gather_rows, mean_over_ranks


class LossTerms(Measure):
    """Means over the samples of fixed global batches, the last one padded and masked.

    Only a term that a method keeps within a rank (`external_negatives: local`) depends on how many
    ranks there are.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._sums: dict[str, float] = {}
        self._count = 0.0

    @classmethod
    def applies(cls, objective: Objective) -> bool:
        """Where there is a loss."""
        return bool(objective.term_weights)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """`total` and its terms."""
        names = self.context.objective.term_weights
        total = Metric("total", "total", unit="number", better="low", headline=True)
        return (total, *(Metric(each, each, unit="number", better="low") for each in names))

    def update(self, batch: Batch, outputs: Any) -> None:
        """Add the batch's terms, by its real samples."""
        terms = self.context.objective.loss(outputs)
        real = float(gather_rows(batch.sample_mask).sum())
        means = mean_over_ranks(torch.stack([value.detach() for value in terms.values()])).tolist()
        for name, mean in zip(terms, means, strict=True):
            self._sums[name] = self._sums.get(name, 0.0) + mean * real
        self._count += real

    def compute(self) -> dict[str, float]:
        """The means."""
        return {name: total / self._count for name, total in self._sums.items()}

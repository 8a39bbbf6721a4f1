"""Validation in the loop: an objective's measures over a whole split, on all ranks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from distributed_pretrain.batch import Batch
from distributed_pretrain.measures.base import Context, Measure, make_measures
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.methods.objective import Objective
from distributed_pretrain.ranks import copy_from_main


@dataclass(frozen=True)
class Validation:
    """What a run is judged by: `kinds` of measures over all of `batches`."""

    batches: Callable[[], Iterable[Batch]]
    context: Context
    kinds: tuple[type[Measure], ...]

    @property
    def metrics(self) -> dict[str, Metric]:
        """What can be measured, by name."""
        measures = make_measures(self.kinds, self.context)
        return {metric.name: metric for measure in measures for metric in measure.metrics}

    def run(
        self,
        *,
        autocast: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
        before_batch: Callable[[], None] = lambda: None,
    ) -> tuple[dict[str, float], list[Measure]]:
        """The numbers over the whole split, and the measures that apply, which gave them.

        The numbers are the same on every rank to the last bit.
        """
        objective, measures = self.context.objective, make_measures(self.kinds, self.context)
        with evaluating(objective):
            for batch in self.batches():
                before_batch()
                with autocast():
                    outputs = objective(batch)
                    for measure in measures:
                        measure.update(batch, outputs)
            with autocast():
                metrics = {k: v for each in measures for k, v in each.compute().items()}
        # Rank 0's: what follows from them must be the same on every rank.
        own = list(metrics.values())
        values = torch.tensor(own, dtype=torch.float64, device=self.context.device)
        copy_from_main([values])
        return dict(zip(metrics, values.tolist(), strict=True)), measures


@contextlib.contextmanager
def evaluating(objective: Objective) -> Iterator[None]:
    """In evaluation mode, without gradient."""
    was_training = objective.training
    objective.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        objective.train(was_training)

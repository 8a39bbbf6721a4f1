"""Validation in the loop: an objective's measures over a whole split, and what follows of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from data_shards.errors import InputError
from distributed_pretrain.batch import Batch
from distributed_pretrain.measures.base import Context, Measure, make_measures
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.methods.objective import Objective
from distributed_pretrain.ranks import copy_from_main
from distributed_pretrain.run_folder.intact import TrainingState
from distributed_pretrain.training.settings import ScheduleConfig, TrainingConfig

# torch's ReduceLROnPlateau: an improvement is one by more than this share of the best score.
_PLATEAU_THRESHOLD = 1e-4


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
            # In float32, as in an evaluation: cosines of 8 bits have ties, and recalls suffer.
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


def judge_validation(
    state: TrainingState,
    config: TrainingConfig,
    schedule: ScheduleConfig,
    metrics: dict[str, float],
    known: Mapping[str, Metric],
) -> tuple[bool, bool]:
    """(is the best so far, should training stop), updating the counters of `state`.

    `known` are the metrics by name. The first validation is the best. Patience counts from the last
    score that beat the one before it by more than `min_delta`, so that creeping gains do not keep a
    run alive. With the `plateau` schedule the learning rate falls after more than
    `schedule.patience` validations without an improvement of its metric. Raises InputError when one
    could not be measured.
    """
    plateau_metric = schedule.metric or config.best_metric
    for field, name in (
        ("training.best_metric", config.best_metric),
        ("schedule.metric", plateau_metric),
    ):
        if name not in metrics:
            raise InputError(
                f"{field}={name}: the validation split has none: it needs positives and negatives "
                "of what is predicted; choose another metric, or other shards"
            )
    score, judged_by = metrics[config.best_metric], known[config.best_metric]

    def improves(reference: float | None, by: float = 0.0) -> bool:
        return reference is None or judged_by.improves(score, reference, by=by)

    if is_best := improves(state.best_score):
        state.best_score = score
    if schedule.name == "plateau":
        state.validations_on_plateau += 1
        figure, reference = metrics[plateau_metric], state.plateau_reference
        least = _PLATEAU_THRESHOLD * abs(reference or 0)
        if reference is None or known[plateau_metric].improves(figure, reference, by=least):
            state.plateau_reference = figure
            state.validations_on_plateau = 0
        elif state.validations_on_plateau > schedule.patience:
            state.learning_rate_reductions += 1
            state.validations_on_plateau = 0
    if config.early_stopping is None:
        return is_best, False
    state.validations_without_improvement += 1
    if improves(state.stopping_reference, config.early_stopping.min_delta):
        state.stopping_reference = score
        state.validations_without_improvement = 0
    return is_best, state.validations_without_improvement >= config.early_stopping.patience

"""Best score, early stopping and reductions of the learning rate, by one validation metric."""

from __future__ import annotations

from data_shards.errors import InputError
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.run_folder.checkpoint import TrainingState
from distributed_pretrain.training.settings import ScheduleConfig, TrainingConfig

# torch's ReduceLROnPlateau: an improvement is one by more than this share of the best score.
_PLATEAU_THRESHOLD = 1e-4


def judge_validation(
    state: TrainingState,
    config: TrainingConfig,
    schedule: ScheduleConfig,
    metrics: dict[str, float],
    judged_by: Metric,
) -> tuple[bool, bool]:
    """(is the best so far, should training stop), updating the counters of `state`.

    The first validation is the best. Patience counts from the last score that beat the one
    before it by more than `min_delta`, so that creeping gains do not keep a run alive. With the
    `plateau` schedule the learning rate falls after more than `schedule.patience` validations
    without an improvement. Raises InputError when the metric could not be measured.
    """
    if config.best_metric not in metrics:
        raise InputError(
            f"training.best_metric={config.best_metric}: the validation split has none: it needs "
            "positives and negatives of a label; choose another metric, or other shards"
        )
    score = metrics[config.best_metric]
    is_best = state.best_score is None or judged_by.improves(score, state.best_score)
    if is_best:
        state.best_score = score
    if schedule.name == "plateau":
        _count_plateau(state, schedule, score, judged_by)
    stopping = config.early_stopping
    if stopping is None:
        return is_best, False
    reference = state.stopping_reference
    if reference is None or judged_by.improves(score, reference, by=stopping.min_delta):
        state.stopping_reference = score
        state.validations_without_improvement = 0
    else:
        state.validations_without_improvement += 1
    return is_best, state.validations_without_improvement >= stopping.patience


def _count_plateau(
    state: TrainingState, schedule: ScheduleConfig, score: float, judged_by: Metric
) -> None:
    best = state.plateau_reference
    if best is None or judged_by.improves(score, best, by=_PLATEAU_THRESHOLD * abs(best)):
        state.plateau_reference = score
        state.validations_on_plateau = 0
        return
    state.validations_on_plateau += 1
    if state.validations_on_plateau > schedule.patience:
        state.learning_rate_reductions += 1
        state.validations_on_plateau = 0

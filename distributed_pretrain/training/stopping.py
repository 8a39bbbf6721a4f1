"""Best score and early stopping on one validation metric."""

from __future__ import annotations

from distributed_pretrain.checkpoint import TrainingState
from distributed_pretrain.training.config import TrainingConfig


def judge_validation(
    state: TrainingState, config: TrainingConfig, metrics: dict[str, float]
) -> tuple[bool, bool]:
    """(is the best so far, should training stop), updating the counters of `state`.

    The first validation is the best. Patience counts from the last score that beat the one
    before it by more than `min_delta`, so that creeping gains do not keep a run alive.
    """
    score = metrics[config.best_metric]
    sign = 1.0 if config.best_is == "highest" else -1.0
    is_best = state.best_score is None or sign * (score - state.best_score) > 0
    if is_best:
        state.best_score = score
    stopping = config.early_stopping
    if stopping is None:
        return is_best, False
    reference = state.stopping_reference
    if reference is None or sign * (score - reference) > stopping.min_delta:
        state.stopping_reference = score
        state.validations_without_improvement = 0
    else:
        state.validations_without_improvement += 1
    return is_best, state.validations_without_improvement >= stopping.patience

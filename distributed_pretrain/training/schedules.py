"""Learning rates as pure functions of the step; what a validation's metric changes in a run."""

from __future__ import annotations

import math

from data_shards.errors import InputError
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.run_folder.checkpoint import TrainingState
from distributed_pretrain.training.settings import ScheduleConfig, TrainingConfig

# torch's ReduceLROnPlateau: an improvement is one by more than this share of the best score.
_PLATEAU_THRESHOLD = 1e-4


def learning_rate_factor(
    schedule: ScheduleConfig,
    step: int,
    *,
    steps_per_epoch: int,
    total_steps: int,
    reductions: int = 0,
) -> float:
    """The factor in [0, 1] on the peak learning rate for update number `step` (from 0).

    `constant`: 1. `cosine`: from 1 to `final_share` over the run after warm-up.
    `cosine_per_epoch`: (1 + cos(pi * step / steps_per_epoch)) / 2, as LoVT's authors trained:
    down to 0 over one epoch and back up over the next. The paper does not say; it is what
    their scheduler does when it is stepped past its `T_max`. `plateau`: `factor` to the power of
    the `reductions` that validation has asked for so far. Warm-up, rounded to the nearest step,
    rises linearly, and the cosines start after it.
    """
    warmup = schedule.warmup_steps or round(
        schedule.warmup_epochs * steps_per_epoch + schedule.warmup_share * total_steps
    )
    if step < warmup:
        return (step + 1) / (warmup + 1)
    after = step - warmup
    if schedule.name == "constant":
        return 1.0
    if schedule.name == "plateau":
        return float(schedule.factor**reductions)
    if schedule.name == "cosine_per_epoch":
        return 0.5 * (1 + math.cos(math.pi * after / steps_per_epoch))
    span = max(1, total_steps - warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, after / span)))
    return schedule.final_share + (1 - schedule.final_share) * cosine


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

    def improves(reference: float | None, by: float = 0.0) -> bool:
        return reference is None or judged_by.improves(score, reference, by=by)

    if is_best := improves(state.best_score):
        state.best_score = score
    if schedule.name == "plateau":
        state.validations_on_plateau += 1
        if improves(
            state.plateau_reference, _PLATEAU_THRESHOLD * abs(state.plateau_reference or 0)
        ):
            state.plateau_reference = score
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

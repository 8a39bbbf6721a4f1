"""Which validation is the best, and when training stops or slows down."""

from __future__ import annotations

import pytest
import torch

from data_shards.errors import InputError
from distributed_pretrain.measures.auroc import AUROC
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.measures.retrieval import RECALL_AT_5 as RECALL
from distributed_pretrain.run_folder.intact import TrainingState
from distributed_pretrain.training.schedules import learning_rate_factor
from distributed_pretrain.training.settings import (
    EarlyStoppingConfig,
    ScheduleConfig,
    TrainingConfig,
)
from distributed_pretrain.training.validation import judge_validation

TOTAL = Metric("total", "total", unit="number", better="low")


def test_the_learning_rate_falls_when_the_watched_metric_stays_on_a_plateau() -> None:
    """As torch's ReduceLROnPlateau does with the same scores."""
    scores = [1.0, 0.9, 0.9, 0.95, 0.91, 0.9, 0.9, 0.8, 0.8, 0.8, 0.8]
    schedule = ScheduleConfig(name="plateau", patience=2, factor=0.1)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=2, factor=0.1)
    state = TrainingState()
    for score in scores:
        judge_validation(state, TrainingConfig(), schedule, {"total": score}, {"total": TOTAL})
        reference.step(score)
        share = learning_rate_factor(
            schedule,
            7,
            steps_per_epoch=1,
            total_steps=50,
            reductions=state.learning_rate_reductions,
        )
        assert share == pytest.approx(optimizer.param_groups[0]["lr"])
    assert state.learning_rate_reductions == 2


def test_the_plateau_may_be_that_of_another_metric_than_the_best() -> None:
    """The loss stays, though AUROC rises: as LoVT's authors train every task."""
    schedule = ScheduleConfig(name="plateau", metric="total", patience=1)
    config, known = TrainingConfig(best_metric="auroc"), {"auroc": AUROC, "total": TOTAL}
    state = TrainingState()
    for number in range(4):
        metrics = {"auroc": 0.5 + 0.1 * number, "total": 1.0}
        is_best, _ = judge_validation(state, config, schedule, metrics, known)
        assert is_best
    assert state.learning_rate_reductions == 1
    with pytest.raises(InputError, match=r"schedule.metric=total: the validation split has none"):
        judge_validation(state, config, schedule, {"auroc": 0.5}, known)


def test_a_metric_that_the_validation_split_cannot_give_is_refused() -> None:
    config = TrainingConfig(best_metric="auroc")
    with pytest.raises(InputError, match=r"best_metric=auroc: the validation split has none"):
        judge_validation(
            TrainingState(), config, ScheduleConfig(), {"total": 1.0}, {"auroc": AUROC}
        )


def judged(scores: list[float], by: Metric, **settings: object) -> list[tuple[bool, bool]]:
    config = TrainingConfig.model_validate({"best_metric": by.name, **settings})
    state = TrainingState()
    return [
        judge_validation(state, config, ScheduleConfig(), {by.name: score}, {by.name: by})
        for score in scores
    ]


def test_training_stops_after_patience_validations_without_enough_gain() -> None:
    stopping = EarlyStoppingConfig(patience=2, min_delta=0.1)
    outcome = judged([1.0, 0.95, 0.93, 0.5], TOTAL, early_stopping=stopping)
    assert outcome == [(True, False), (True, False), (True, True), (True, False)]


@pytest.mark.parametrize(
    ("metric", "is_best"),
    [(TOTAL, [True, False, False]), (AUROC, [True, True, False]), (RECALL, [True, True, False])],
)
def test_which_way_is_better_is_asked_of_the_metric(metric: Metric, is_best: list[bool]) -> None:
    assert [best for best, _ in judged([0.1, 0.3, 0.2], metric)] == is_best


def test_a_metric_of_any_name_may_be_best_when_high() -> None:
    """No word in a name decides it: neither recall nor auroc is in this one."""
    dice = Metric("linear_dice", "linear Dice")
    assert [best for best, _ in judged([0.1, 0.3, 0.2], dice)] == [True, True, False]


def test_a_high_metric_stops_training_when_it_no_longer_rises() -> None:
    stopping = EarlyStoppingConfig(patience=2, min_delta=0.1)
    outcome = judged([0.1, 0.3, 0.35, 0.2], RECALL, early_stopping=stopping)
    assert [stop for _, stop in outcome] == [False, False, False, True]

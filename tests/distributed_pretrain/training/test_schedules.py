from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from distributed_pretrain.training.schedules import learning_rate_factor
from distributed_pretrain.training.settings import ScheduleConfig


def test_the_authors_cosine_falls_over_one_epoch_and_rises_over_the_next() -> None:
    schedule = ScheduleConfig(name="cosine_per_epoch")
    shares = [
        learning_rate_factor(schedule, step, steps_per_epoch=411, total_steps=41100)
        for step in (0, 411, 822)
    ]
    assert shares == pytest.approx([1.0, 0.0, 1.0])
    quarter = learning_rate_factor(schedule, 137, steps_per_epoch=411, total_steps=41100)
    assert quarter == pytest.approx(0.5 * (1 + math.cos(math.pi / 3)))


def test_warm_up_rises_linearly_to_the_peak_and_cosine_ends_at_its_share() -> None:
    schedule = ScheduleConfig(name="cosine", warmup_steps=4, final_share=0.1)
    shares = [
        learning_rate_factor(schedule, step, steps_per_epoch=10, total_steps=24)
        for step in (0, 1, 2, 3, 4, 14, 24)
    ]
    assert shares == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 0.55, 0.1])


@pytest.mark.parametrize("warmup", [{"warmup_epochs": 0.4}, {"warmup_share": 1 / 6}])
def test_warm_up_may_be_given_in_epochs_or_as_a_share_of_the_run(warmup: dict[str, float]) -> None:
    in_steps, otherwise = (
        ScheduleConfig.model_validate({"name": "cosine", **each})
        for each in ({"warmup_steps": 4}, warmup)
    )
    for step in range(24):
        assert learning_rate_factor(
            otherwise, step, steps_per_epoch=10, total_steps=24
        ) == learning_rate_factor(in_steps, step, steps_per_epoch=10, total_steps=24)
    with pytest.raises(ValidationError, match="give one of"):
        ScheduleConfig(warmup_steps=3, warmup_share=0.5)

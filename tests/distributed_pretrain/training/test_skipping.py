"""A step that is skipped on the device leaves everything as it was, and nobody asks the host."""

from __future__ import annotations

import math
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from distributed_pretrain.training.engine.ddp import Engine, build_optimizer
from distributed_pretrain.training.kept_buffers import BuffersOf, KeptBuffers
from distributed_pretrain.training.late_numbers import LateNumbers, sent
from distributed_pretrain.training.settings import NonFiniteConfig, OptimizerConfig, TrainingConfig
from distributed_pretrain.training.step import Stepper


def test_buffers_come_back_only_where_they_are_to() -> None:
    norm = nn.BatchNorm2d(3)
    kept = KeptBuffers(norm.buffers())
    before = deepcopy(norm.state_dict())
    norm(torch.full((2, 3, 2, 2), torch.nan))
    after = deepcopy(norm.state_dict())
    kept.put_back(where=torch.tensor(False))
    torch.testing.assert_close(dict(norm.state_dict()), dict(after), equal_nan=True)
    kept.put_back(where=torch.tensor(True))
    assert all(before[name].equal(each) for name, each in norm.state_dict().items())
    norm(torch.ones(2, 3, 2, 2))
    kept.put_back()
    assert all(before[name].equal(each) for name, each in norm.state_dict().items())


def test_the_buffers_of_a_module_are_those_that_are_there_now() -> None:
    module = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(nn.ReLU(), nn.BatchNorm2d(2)))
    module.register_buffer("nothing", None)
    found = BuffersOf(module)
    for _ in range(2):
        now = found.now()
        assert len(now) == 6
        assert {id(each) for each in now} == {id(each) for each in module.buffers()}
        module[0].running_mean = torch.ones(3)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_a_skipped_update_leaves_weights_moments_and_counts(name: Any) -> None:
    engine = Engine(TrainingConfig())
    objective: Any = nn.Linear(3, 2)
    config = OptimizerConfig(name=name, weight_decay=0.1)
    engine.prepare(objective, build_optimizer(config, objective))

    def update(gradient: float, *, skip: bool) -> None:
        for parameter in engine.parameters:
            parameter.grad = torch.full_like(parameter, gradient)
        norm = engine.gradient_norm()
        engine.update(0.1, clip_norm=1.0, norm=norm, skip=torch.tensor(skip))

    update(0.5, skip=False)
    before = deepcopy((objective.state_dict(), engine.optimizer_state()["state"]))
    update(math.nan, skip=True)
    after = objective.state_dict(), engine.optimizer_state()["state"]
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    update(0.5, skip=False)
    assert not objective.weight.equal(before[0]["weight"])
    assert engine.optimizer_state()["state"][0]["step"] == 2


def test_numbers_are_read_as_they_were_sent() -> None:
    numbers, arrived = LateNumbers(sent([1.5, -2.0], torch.device("cpu"))).read()
    assert numbers.tolist() == [1.5, -2.0]
    assert arrived > 0


@pytest.mark.parametrize(
    ("skipped", "in_a_row", "decides"), [(0, 0, False), (3, 1, False), (3, 2, True), (9, 0, True)]
)
def test_a_step_that_may_end_or_rewind_the_run_is_read_at_once(
    skipped: int, in_a_row: int, decides: bool
) -> None:
    training = TrainingConfig(non_finite=NonFiniteConfig(rewind_after=3, stop_after=10))
    stepper: Any = SimpleNamespace(config=SimpleNamespace(training=training))
    state: Any = SimpleNamespace(skipped_steps=skipped, consecutive_skips=in_a_row)
    assert Stepper.decides(stepper, state) == decides

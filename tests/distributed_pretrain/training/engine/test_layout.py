"""States that fit a model and its Adam, and all kinds that do not."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from distributed_pretrain.training.engine.layout import StateLayout


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    convolution = nn.Conv2d(2, 3, 3)
    convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last)
    model = nn.Sequential(convolution, nn.Flatten(), nn.Linear(3, 1))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model(torch.randn(4, 2, 3, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def set_first(name: str, value: float) -> Callable[[Any], object]:
    """One number of a moment of the first parameter."""

    def change(state: Any) -> None:
        tensor = state["state"][0][name]
        tensor[(0,) * tensor.ndim] = value

    return change


WRONG: dict[str, tuple[Callable[[Any], object], str]] = {
    "no state": (lambda state: state.clear(), "not the state of an Adam"),
    "two groups": (lambda state: state["param_groups"].append({}), "not the state of an Adam"),
    "more parameters": (
        lambda state: state["param_groups"][0]["params"].append(4),
        "not of 4 parameters",
    ),
    "a parameter too many": (
        lambda state: state["state"].update({4: state["state"][0]}),
        "a state of parameter 4",
    ),
    "a parameter by name": (
        lambda state: state["state"].update(a=state["state"][0]),
        "a state of parameter 'a'",
    ),
    "a number for moments": (
        lambda state: state["state"].update({0: 3.0}),
        "other things than tensors",
    ),
    "moments of another parameter": (
        lambda state: state["state"].update({0: state["state"][1]}),
        "of parameter 0, 'exp_avg' is float32 (3,), and should be float32 (3, 2, 3, 3)",
    ),
    "whole numbers": (
        lambda state: state["state"][0].update(exp_avg=state["state"][0]["exp_avg"].long()),
        "'exp_avg' is int64",
    ),
    "no second moment": (lambda state: state["state"][0].pop("exp_avg_sq"), "is missing"),
    "many steps": (
        lambda state: state["state"][0].update(step=torch.ones(9)),
        "'step' is float32 (9,)",
    ),
    "a step that is no number": (
        lambda state: state["state"][0].update(step=torch.tensor(torch.nan)),
        "updated nan times",
    ),
    "a step that is half": (set_first("step", 2.5), "updated 2.5 times"),
    "endless steps": (set_first("step", torch.inf), "updated inf times"),
    "a moment of NaN": (set_first("exp_avg", torch.nan), "'exp_avg' of parameter 0 is not finite"),
    "an infinite square": (set_first("exp_avg_sq", torch.inf), "is not finite"),
    "a square below zero": (
        set_first("exp_avg_sq", -1e-12),
        "'exp_avg_sq' of parameter 0 has numbers below zero",
    ),
}


@pytest.mark.parametrize(("change", "said"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_named(change: Callable[[Any], object], said: str) -> None:
    model, optimizer = trained()
    layout = StateLayout(model.state_dict(), list(model.parameters()))
    state = copy.deepcopy(optimizer.state_dict())
    assert layout.mismatch(model.state_dict(), state) is None
    change(state)
    found = layout.mismatch(model.state_dict(), state)
    assert found is not None
    assert said in found


def test_moments_are_copied_and_laid_out_as_their_parameters() -> None:
    model, optimizer = trained()
    layout = StateLayout(model.state_dict(), list(model.parameters()))
    saved = optimizer.state_dict()["state"]
    rows_first = {
        number: {name: each.contiguous() for name, each in moments.items()}
        for number, moments in saved.items()
    }
    found = layout.laid_out(rows_first)
    for number, parameter in enumerate(model.parameters()):
        for name in ("exp_avg", "exp_avg_sq"):
            assert found[number][name].stride() == parameter.stride()
            assert torch.equal(found[number][name], saved[number][name])
            assert found[number][name].data_ptr() != rows_first[number][name].data_ptr()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["0.weight", "1.running_var"])
def test_weights_and_statistics_that_are_not_finite_are_named(name: str, value: float) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    model.register_buffer("mask", torch.tensor([0.0, -torch.inf]))  # as it was built
    layout = StateLayout(model.state_dict(), list(model.parameters()))
    optimizer = torch.optim.AdamW(model.parameters()).state_dict()
    assert layout.mismatch(model.state_dict(), optimizer) is None
    forged = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    forged[name].view(-1)[-1] = value
    said = f"model: '{name}' holds numbers that are not finite"
    assert layout.mismatch(forged, optimizer) == said

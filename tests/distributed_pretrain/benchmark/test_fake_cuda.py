"""What is counted as a wait on a GPU that is not there; and backward as autograd has it."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from distributed_pretrain.benchmark.fake_backward import run_backward
from distributed_pretrain.benchmark.fake_cuda import HostWaits, fake_cuda
from distributed_pretrain.training.late_numbers import LateNumbers, sent

WAITING: dict[str, Callable[[Tensor], object]] = {
    "a number": lambda x: x[0, 0].item(),
    "a condition": lambda x: bool((x > 0).any()),
    "places": lambda x: x.nonzero(),
    "a mask": lambda x: x[x[:, 0] > 0],
    "a mask of all": lambda x: x[x > 0],
    "a mask to write to": lambda x: x.index_put_((x > 0,), x.new_zeros(())),
    "a mask of the host": lambda x: x[torch.tensor([True, False, True])],
    "a list": lambda x: x[[0, 2]],
    "a list to write to": lambda x: x.__setitem__([0, 2], x[:2]),
    "an index of the host": lambda x: x[torch.tensor([0, 2])],
    "to the host": lambda x: x.cpu(),
    "to the host's memory": lambda x: torch.empty(3, 2).copy_(x),
    "to pageable memory": lambda x: torch.empty(3, 2).copy_(x, non_blocking=True),
    "from the host": lambda x: torch.ones(3, 2).to(x.device),
    "from the host's memory": lambda x: x.copy_(torch.ones(3, 2)),
    "numbers of Python": lambda x: x.new_tensor([1.0, 2.0]),
    "an event": lambda x: LateNumbers(x).read(),
}
FREE: dict[str, Callable[[Tensor], object]] = {
    "arithmetic": lambda x: (x @ x.T).relu().sum(),
    "an index of the GPU": lambda x: x[torch.zeros(2, dtype=torch.long, device="cuda")],
    "late numbers": LateNumbers,
    "page-locked numbers": lambda x: sent([1.0, 2.0], x.device),
    "to page-locked memory": lambda x: torch.empty(3, 2, pin_memory=True).copy_(
        x, non_blocking=True
    ),
    "between types": lambda x: x.double(),
    "on the host": lambda _: torch.ones(3)[[0, 2]].sum().item(),
}


def seen_of(action: Callable[[Tensor], object]) -> HostWaits:
    seen = HostWaits()
    with fake_cuda():
        values = torch.empty(3, 2, device="cuda")
        with seen:
            action(values)
    return seen


@pytest.mark.parametrize("what", WAITING)
def test_each_kind_of_wait_is_seen_once(what: str) -> None:
    seen = seen_of(WAITING[what])
    assert seen.waits.total() == 1
    assert not seen.copies


@pytest.mark.parametrize("what", FREE)
def test_what_nobody_waits_for_is_no_wait(what: str) -> None:
    seen = seen_of(FREE[what])
    assert not seen.waits
    assert not seen.copies


def test_a_copy_from_pageable_memory_that_does_not_wait_is_a_copy() -> None:
    seen = seen_of(lambda _: torch.ones(3).to("cuda", non_blocking=True))
    assert not seen.waits
    assert seen.copies.total() == 1


def test_a_mask_takes_the_place_of_as_many_dimensions_as_it_has() -> None:
    with fake_cuda(), HostWaits():
        values = torch.empty(3, 2, 5, device="cuda")
        assert values[values[..., 0] > 0].shape == (6, 5)


def test_mixed_devices_raise() -> None:
    with fake_cuda(), HostWaits(), pytest.raises(RuntimeError, match="device"):
        torch.ones(3, device="cuda") + torch.ones(3)


class _ToAnotherDevice(torch.autograd.Function):
    @staticmethod
    def forward(_: object, values: Tensor) -> Tensor:
        return values * 2

    @staticmethod
    def backward(_: object, gradient: Tensor) -> Tensor:
        return torch.ones(gradient.shape)


def test_a_gradient_on_another_device_is_refused() -> None:
    with fake_cuda():
        values = torch.ones(3, device="cuda", requires_grad=True)
        with pytest.raises(AssertionError, match="cpu, not cuda:0"):
            _ToAnotherDevice.apply(values).sum().backward()


def gradients() -> list[Tensor]:
    """Of a network with paths that meet and views, by both of autograd's functions."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 4))
    inputs = torch.randn(5, 4, requires_grad=True)
    first, second = (network(inputs) + inputs).split([1, 3], dim=1)
    loss = first.square().sum() + (second * first).sum()
    asked = torch.autograd.grad(loss, [inputs, *network.parameters()], retain_graph=True)
    for _ in range(2):  # they add up
        loss.backward(retain_graph=True)
    return [
        *asked,
        *(each.grad for each in (inputs, *network.parameters()) if each.grad is not None),
    ]


def test_gradients_are_those_of_autograds_engine() -> None:
    expected = gradients()
    with mock.patch("torch.autograd._engine_run_backward", run_backward):
        found = gradients()
    assert len(found) == len(expected) == 14
    for ours, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, wanted)

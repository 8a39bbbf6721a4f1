"""The teacher of BYOL and PixPro."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from distributed_pretrain.models.ema import EmaTeacher, ema_momentum
from distributed_pretrain.models.heads import Projection


def networks() -> tuple[nn.Module, EmaTeacher]:
    torch.manual_seed(0)
    student = Projection(4, hidden_dim=8, output_dim=3)
    return student, EmaTeacher(student)


def train(student: nn.Module, teacher: EmaTeacher, steps: int, *, momentum: float = 0.9) -> None:
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        student(torch.randn(6, 4)).square().sum().backward()
        optimizer.step()
        teacher.follow(student, momentum)


def test_the_weights_are_the_exponential_moving_average_and_buffers_copies() -> None:
    student, teacher = networks()
    averages = {name: each.detach().clone() for name, each in student.named_parameters()}
    for _ in range(3):
        train(student, teacher, 1)
        for name, each in student.named_parameters():
            averages[name] = 0.9 * averages[name] + 0.1 * each.detach()
    for name, average in averages.items():
        torch.testing.assert_close(teacher.network.get_parameter(name), average)
        assert not torch.equal(average, student.get_parameter(name))
    for name, buffer in student.named_buffers():
        assert torch.equal(teacher.network.get_buffer(name), buffer)


def test_a_teacher_gives_no_gradient_and_is_not_trained() -> None:
    student, teacher = networks()
    inputs = torch.randn(6, 4, requires_grad=True)
    assert not teacher(inputs).requires_grad
    assert not any(each.requires_grad for each in teacher.parameters())
    assert all(each.requires_grad for each in student.parameters())


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_momentum_0_is_the_student_and_1_stands_still(momentum: float) -> None:
    student, teacher = networks()
    before = copy.deepcopy(teacher.network)
    train(student, teacher, 2, momentum=momentum)
    expected = student if momentum == 0 else before
    for ours, theirs in zip(teacher.network.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_teacher_goes_on_exactly_from_its_state_dict() -> None:
    student, teacher = networks()
    train(student, teacher, 2)
    saved = copy.deepcopy((student.state_dict(), teacher.state_dict()))
    random = torch.get_rng_state()
    train(student, teacher, 2)
    resumed_student, resumed = networks()
    resumed_student.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    torch.set_rng_state(random)
    train(resumed_student, resumed, 2)
    for name, value in teacher.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_a_compiled_forward_sees_the_new_weights_without_compiling_again() -> None:
    # Of torch's own layers: the shape checks of the tests would be compiled with ours.
    student = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    teacher = EmaTeacher(student).eval()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(teacher.network, backend=counter)
    inputs = torch.randn(6, 4)
    outputs: list[Tensor] = []
    for _ in range(3):
        outputs.append(compiled(inputs))
        torch.testing.assert_close(outputs[-1], teacher(inputs))
        train(student, teacher, 1)
    assert not torch.equal(outputs[0], outputs[-1])
    assert counter.frame_count == 1


def test_another_student_is_refused() -> None:
    _, teacher = networks()
    with pytest.raises(AssertionError, match="not the student"):
        teacher.follow(Projection(4, hidden_dim=8, output_dim=2), 0.9)


def test_the_momentum_rises_from_its_start_to_1_along_a_cosine() -> None:
    assert ema_momentum(0.0) == pytest.approx(0.996)
    assert ema_momentum(0.5) == pytest.approx(0.998)
    assert ema_momentum(1.0) == 1
    assert ema_momentum(0.25, start=0.99) == pytest.approx(1 - 0.01 * (0.5**0.5 + 1) / 2)

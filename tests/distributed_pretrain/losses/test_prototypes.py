"""Sinkhorn assignments and MGCA's swapped prediction."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from distributed_pretrain.losses.prototypes import prototype_loss, sinkhorn

BATCH, PROTOTYPES, DIM = 6, 4, 5


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    drawn = torch.randn(3, BATCH, DIM, generator=generator, dtype=torch.float64)
    image, report, prototypes = drawn[0], drawn[1], drawn[2, :PROTOTYPES] * 3
    return image.requires_grad_(), report.requires_grad_(), prototypes.clone().requires_grad_()


def cosines(one: Tensor, other: Tensor) -> Tensor:
    return torch.nn.functional.normalize(one, dim=1) @ torch.nn.functional.normalize(other, dim=1).T


def assignments_of_a_loop(similarity: Tensor, epsilon: float, iterations: int) -> Tensor:
    """The transport polytope's rows 1 / K and columns 1 / B in turn (Cuturi 2013)."""
    plan = [[math.exp(s / epsilon) for s in row] for row in similarity.tolist()]
    samples, prototypes = len(plan), len(plan[0])
    for _ in range(iterations):
        for k in range(prototypes):
            share = sum(row[k] for row in plan) * prototypes
            for row in plan:
                row[k] /= share
        for row in plan:
            share = sum(row) * samples
            row[:] = [value / share for value in row]
    return torch.tensor(plan, dtype=torch.float64) * samples


@pytest.mark.parametrize("iterations", [1, 3])
def test_assignments_are_those_of_a_loop(iterations: int) -> None:
    image, _, prototypes = inputs()
    similarity = cosines(image, prototypes).detach()
    expected = assignments_of_a_loop(similarity, 0.05, iterations)
    torch.testing.assert_close(sinkhorn(similarity, iterations=iterations), expected)


def test_after_many_iterations_prototypes_share_the_samples_equally() -> None:
    image, _, prototypes = inputs()
    assigned = sinkhorn(cosines(image, prototypes), epsilon=0.5, iterations=200)
    torch.testing.assert_close(assigned.sum(dim=1), torch.ones(BATCH, dtype=torch.float64))
    expected = torch.full((PROTOTYPES,), BATCH / PROTOTYPES, dtype=torch.float64)
    torch.testing.assert_close(assigned.sum(dim=0), expected)


def test_equal_similarities_are_assigned_equally() -> None:
    assigned = sinkhorn(torch.full((3, 8), 0.3))
    torch.testing.assert_close(assigned, torch.full((3, 8), 1 / 8))


def test_two_sets_at_once_are_two_problems() -> None:
    image, report, prototypes = inputs()
    both = torch.stack([cosines(image, prototypes), cosines(report, prototypes)])
    torch.testing.assert_close(sinkhorn(both)[1], sinkhorn(both[1]))


def test_a_small_epsilon_overflows_nowhere() -> None:
    image, _, prototypes = inputs()
    assigned = sinkhorn(cosines(image, prototypes).float(), epsilon=0.005)
    assert assigned.isfinite().all()
    torch.testing.assert_close(assigned.sum(dim=1), torch.ones(BATCH))


def test_the_loss_is_the_mean_of_both_swapped_predictions() -> None:
    image, report, prototypes = inputs()
    similarities = [cosines(each, prototypes) for each in (image, report)]
    codes = [assignments_of_a_loop(each.detach(), 0.05, 3) for each in similarities]
    losses = []
    for code, similarity in ((codes[0], similarities[1]), (codes[1], similarities[0])):
        for sample in range(BATCH):
            exponentials = [math.exp(float(s.detach()) / 0.2) for s in similarity[sample]]
            losses += [
                -float(code[sample, k]) * math.log(exponentials[k] / sum(exponentials))
                for k in range(PROTOTYPES)
            ]
    expected = sum(losses) / (2 * BATCH)
    assert prototype_loss(image, report, prototypes).item() == pytest.approx(expected, rel=1e-10)


def test_sure_and_equal_assignments_have_no_loss() -> None:
    eye = torch.eye(5, dtype=torch.float64)
    loss = prototype_loss(eye, eye, eye, temperature=0.01, epsilon=0.01)
    assert loss.item() == pytest.approx(0, abs=1e-10)


def test_no_gradient_flows_through_the_assignments() -> None:
    image, report, prototypes = inputs()
    (gradient,) = torch.autograd.grad(prototype_loss(image, report, prototypes), image)
    codes = [sinkhorn(cosines(each, prototypes).detach()) for each in (image, report)]
    fixed = -(codes[1] * (cosines(image, prototypes) / 0.2).log_softmax(dim=1)).sum(dim=1)
    (expected,) = torch.autograd.grad(fixed.mean() / 2, image)
    torch.testing.assert_close(gradient, expected)


def test_lengths_of_prototypes_do_not_matter() -> None:
    image, report, prototypes = inputs()
    torch.testing.assert_close(
        prototype_loss(image, report, prototypes), prototype_loss(image, report, prototypes / 7)
    )


def test_frozen_prototypes_get_a_gradient_of_zeros_and_the_embeddings_their_own() -> None:
    image, report, prototypes = inputs()
    loss, frozen = (
        prototype_loss(image, report, prototypes, frozen=each) for each in (False, True)
    )
    expected = torch.autograd.grad(loss, (image, prototypes))
    ours = torch.autograd.grad(frozen, (image, prototypes))
    assert torch.equal(loss, frozen)
    torch.testing.assert_close(ours[0], expected[0])
    assert expected[1].any()
    assert not ours[1].any()


def test_masked_samples_change_neither_loss_nor_gradient() -> None:
    image, report, prototypes = inputs()
    loss = prototype_loss(image, report, prototypes)
    expected = torch.autograd.grad(loss, (image, report, prototypes))
    nan = torch.full((2, DIM), math.nan, dtype=torch.float64)
    padded = [torch.cat([nan, each.detach()]).requires_grad_() for each in (image, report)]
    mask = torch.arange(8) >= 2
    masked = prototype_loss(padded[0], padded[1], prototypes, sample_mask=mask)
    ours = torch.autograd.grad(masked, (*padded, prototypes))
    torch.testing.assert_close(masked, loss)
    torch.testing.assert_close(ours[2], expected[2])
    for mine, theirs in zip(ours[:2], expected[:2], strict=True):
        torch.testing.assert_close(mine[mask], theirs)
        assert not mine[~mask].any()


def test_a_batch_of_padding_has_no_loss() -> None:
    image, report, prototypes = inputs()
    nobody = torch.zeros(BATCH, dtype=torch.bool)
    loss = prototype_loss(image, report, prototypes, sample_mask=nobody)
    loss.backward()
    assert loss.item() == 0
    assert prototypes.grad is not None
    assert not prototypes.grad.any()

"""SimCLR's and BYOL's losses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from distributed_pretrain.losses.blockwise import row_log_normalisers
from distributed_pretrain.losses.self_supervised import byol_loss, nt_xent_loss


def vectors(count: int, *, batch: int = 5, dim: int = 7) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    drawn = torch.randn(count, batch, dim, generator=generator, dtype=torch.float64)
    return [each.clone().requires_grad_() for each in drawn]


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a @ b / (a.norm() * b.norm())).detach())


def test_nt_xent_is_equation_1_over_all_views() -> None:
    first, second = vectors(2)
    views, tau, losses = [*first, *second], 0.1, []
    for i, view in enumerate(views):
        positive = (i + len(first)) % len(views)
        others = sum(math.exp(cosine(view, other) / tau) for k, other in enumerate(views) if k != i)
        losses.append(-math.log(math.exp(cosine(view, views[positive]) / tau) / others))
    expected = sum(losses) / len(losses)
    assert nt_xent_loss(first, second).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_views_get_gradients_as_rows_and_as_negatives(chunk_size: int | None) -> None:
    def loss(first: Tensor, second: Tensor) -> Tensor:
        return nt_xent_loss(first, second, chunk_size=chunk_size)

    assert torch.autograd.gradcheck(loss, vectors(2, batch=4, dim=3))


def test_identical_views_of_all_images_give_the_logarithm_of_the_others() -> None:
    ones = torch.ones(6, 4, dtype=torch.float64)
    assert nt_xent_loss(ones, ones).item() == pytest.approx(math.log(11), rel=1e-12)


def test_one_image_has_no_nt_xent_loss() -> None:
    first, second = vectors(2, batch=1)
    assert nt_xent_loss(first, second).item() == pytest.approx(0, abs=1e-12)


def test_a_cold_temperature_does_not_let_a_view_find_itself() -> None:
    # cos(z_i, z_i) = 1 would dwarf every other exponential, and its difference lose all digits.
    first, second = (each.detach().float() for each in vectors(2))
    exact = nt_xent_loss(first.double(), second.double(), temperature=0.005)
    ours = nt_xent_loss(first, second, temperature=0.005)
    assert exact.item() > 10
    assert ours.item() == pytest.approx(exact.item(), rel=1e-5)


@pytest.mark.parametrize("chunk_size", [None, 1, 3, 50])
def test_masked_images_and_chunks_change_neither_nt_xent_nor_its_gradient(
    chunk_size: int | None,
) -> None:
    first, second = vectors(2)
    loss = nt_xent_loss(first, second)
    expected = torch.autograd.grad(loss, (first, second))
    nan = torch.full((1, 7), math.nan, dtype=torch.float64)
    padded = [torch.cat([nan, each.detach(), nan]).requires_grad_() for each in (first, second)]
    mask = torch.tensor([False] + [True] * 5 + [False])
    masked = nt_xent_loss(padded[0], padded[1], sample_mask=mask, chunk_size=chunk_size)
    torch.testing.assert_close(masked, loss)
    for ours, theirs in zip(torch.autograd.grad(masked, padded), expected, strict=True):
        torch.testing.assert_close(ours[mask], theirs)
        assert not ours[~mask].any()


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_normalisers_without_the_own_column_pass_the_gradient_check(chunk_size: int | None) -> None:
    rows = vectors(1, batch=4, dim=3)[0]
    own = torch.tensor([1, 0, 3, 2])

    def normalisers(rows: Tensor) -> Tensor:
        return row_log_normalisers(rows, rows, own_column=own, chunk_size=chunk_size)

    logits = (rows @ rows.T).detach()
    logits[torch.arange(4), own] = -math.inf
    torch.testing.assert_close(normalisers(rows).detach(), logits.logsumexp(dim=1))
    assert torch.autograd.gradcheck(normalisers, (rows,))


def test_bfloat16_views_give_a_float32_loss() -> None:
    first, second = (each.detach().bfloat16() for each in vectors(2))
    with torch.autocast("cpu", torch.bfloat16):
        assert nt_xent_loss(first, second).dtype == torch.float32
        assert byol_loss(first, second, first, second).dtype == torch.float32


def test_byol_is_the_squared_distance_of_unit_vectors_both_ways() -> None:
    q_1, q_2, z_1, z_2 = vectors(4)
    distances = [
        sum((a / a.norm() - b / b.norm()).square().sum() for a, b in ((q, z), (p, y)))
        for q, z, p, y in zip(q_1, z_2, q_2, z_1, strict=True)
    ]
    expected = sum(distances) / len(distances)
    torch.testing.assert_close(byol_loss(q_1, q_2, z_1, z_2), expected)


def test_byol_is_0_where_predictions_are_right_and_8_where_they_are_opposite() -> None:
    q_1, q_2 = (each.detach() for each in vectors(2))
    assert byol_loss(q_1, q_2, 3 * q_2, q_1 / 2).item() == pytest.approx(0, abs=1e-12)
    assert byol_loss(q_1, q_2, -q_2, -q_1).item() == pytest.approx(8, rel=1e-12)


def test_predictions_of_byol_pass_the_gradient_check() -> None:
    q_1, q_2, z_1, z_2 = vectors(4, batch=3, dim=4)
    targets = z_1.detach(), z_2.detach()
    assert torch.autograd.gradcheck(lambda q, p: byol_loss(q, p, *targets), (q_1, q_2))


def test_targets_of_byol_get_no_gradient() -> None:
    inputs = vectors(4)
    byol_loss(*inputs).backward()
    assert all(each.grad is not None and each.grad.any() for each in inputs[:2])
    assert all(each.grad is None for each in inputs[2:])


def test_masked_images_change_neither_byol_nor_its_gradient() -> None:
    inputs = vectors(4)
    loss = byol_loss(*inputs)
    expected = torch.autograd.grad(loss, inputs[:2])
    nan = torch.full((2, 7), math.nan, dtype=torch.float64)
    padded = [torch.cat([each.detach(), nan]).requires_grad_() for each in inputs]
    mask = torch.arange(7) < 5
    masked = byol_loss(*padded, sample_mask=mask)
    torch.testing.assert_close(masked, loss)
    for ours, theirs in zip(torch.autograd.grad(masked, padded[:2]), expected, strict=True):
        torch.testing.assert_close(ours[mask], theirs)
        assert not ours[~mask].any()

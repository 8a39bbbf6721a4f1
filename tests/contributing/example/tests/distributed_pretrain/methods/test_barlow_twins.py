"""Barlow Twins: the paper's loss, and that its views may change places."""

from __future__ import annotations

from dataclasses import replace

import torch

from tests.tiny.batches import random_batch
from tests.tiny.methods import tiny_method, tiny_profile

PROFILE = tiny_profile("phantom_barlow_twins", norm="group")


def terms_of(first: torch.Tensor, second: torch.Tensor) -> dict[str, torch.Tensor]:
    mask = torch.ones(len(first), dtype=torch.bool)
    return tiny_method(PROFILE).batch_terms(first, second, sample_mask=mask)


def test_the_loss_is_that_of_the_paper_s_pseudocode() -> None:
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(6, 3, dtype=torch.float64, generator=generator)
    second = torch.randn(6, 3, dtype=torch.float64, generator=generator)
    invariance = redundancy = 0.0
    for d in range(3):
        for e in range(3):
            a, b = first[:, d], second[:, e]
            a, b = (each - each.mean() for each in (a, b))
            c = (a * b).mean() / (a.square().mean().sqrt() * b.square().mean().sqrt())
            if d == e:
                invariance += (1 - c.item()) ** 2
            else:
                redundancy += c.item() ** 2
    terms = terms_of(first, second)
    expected = torch.tensor([invariance, redundancy], dtype=torch.float64)
    found = torch.stack([terms["invariance"], terms["redundancy"]])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)


def test_equal_views_of_independent_dimensions_cost_nothing() -> None:
    views = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    terms = terms_of(views, views)
    assert max(term.item() for term in terms.values()) < 1e-6


def test_the_views_may_change_places() -> None:
    method, batch = tiny_method(PROFILE), random_batch(PROFILE, 4)
    assert batch.second_view is not None
    swapped = replace(
        batch,
        images=batch.second_view.images,
        second_view=replace(batch.second_view, images=batch.images),
    )
    ours, expected = (method.loss(method(each))["total"] for each in (swapped, batch))
    torch.testing.assert_close(ours, expected)

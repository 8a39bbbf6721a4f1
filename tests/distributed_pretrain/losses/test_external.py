"""The external loss in one process; on ranks: tests/distributed/test_external_on_ranks.py."""

from __future__ import annotations

import math

import pytest
import torch

from distributed_pretrain.losses.contrastive import symmetric_cross_entropy
from distributed_pretrain.losses.external import external_loss, gather_tokens


@pytest.mark.parametrize("gather", [True, False])
def test_in_one_process_it_is_the_symmetric_cross_entropy(gather: bool) -> None:
    similarity = torch.randn(5, 5, dtype=torch.float64)
    mask = torch.tensor([True, False, True, True, False])
    for sample_mask in (None, mask):
        torch.testing.assert_close(
            external_loss(similarity, temperature=0.1, sample_mask=sample_mask, gather=gather),
            symmetric_cross_entropy(similarity, temperature=0.1, sample_mask=sample_mask),
        )


def test_alike_pairs_cost_twice_the_logarithm_of_their_number() -> None:
    loss = external_loss(torch.full((6, 6), 0.3), temperature=0.1)
    assert loss.item() == pytest.approx(2 * math.log(6), rel=1e-5)
    assert external_loss(100 * torch.eye(6), temperature=0.1).item() == pytest.approx(0, abs=1e-6)


def test_samples_that_are_not_there_have_no_gradient_even_with_nan() -> None:
    mask = torch.tensor([True, True, False])
    similarity = torch.randn(3, 3, dtype=torch.float64)
    similarity[2] = similarity[:, 2] = math.nan
    similarity.requires_grad_()
    loss = external_loss(similarity, temperature=0.1, sample_mask=mask)
    loss.backward()
    torch.testing.assert_close(loss, external_loss(similarity[:2, :2], temperature=0.1))
    assert similarity.grad is not None
    assert similarity.grad[:2, :2].abs().min() > 0
    assert similarity.grad[2].abs().sum() == similarity.grad[:, 2].abs().sum() == 0


def test_half_precision_similarities_give_a_float32_loss() -> None:
    assert external_loss(torch.randn(3, 3).bfloat16(), temperature=0.1).dtype == torch.float32


def test_in_one_process_tokens_stay_as_they_are() -> None:
    tokens, mask = torch.randn(2, 3, 4), torch.rand(2, 3) < 0.5
    assert torch.equal(gather_tokens(tokens), tokens)
    assert torch.equal(gather_tokens(mask), mask)

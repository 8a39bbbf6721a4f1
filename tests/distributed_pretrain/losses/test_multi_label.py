"""Binary cross entropy over known labels."""

from __future__ import annotations

import math

import pytest
import torch

from distributed_pretrain.losses.multi_label import multi_label_loss

NAN = math.nan
LABELS = torch.tensor([[1, 0, NAN], [NAN, -1, NAN], [0, 1, 1]], dtype=torch.float64)


def logits() -> torch.Tensor:
    generator = torch.Generator().manual_seed(6)
    return torch.randn(3, 3, generator=generator, dtype=torch.float64).requires_grad_()


def test_the_loss_is_the_mean_over_known_labels() -> None:
    scores, losses = logits(), []
    for score, label in zip(scores.flatten().tolist(), LABELS.flatten().tolist(), strict=True):
        probability = 1 / (1 + math.exp(-score))
        if label == 1:
            losses.append(-math.log(probability))
        elif label == 0:
            losses.append(-math.log(1 - probability))
    assert len(losses) == 5
    expected = sum(losses) / len(losses)
    assert multi_label_loss(scores, LABELS).item() == pytest.approx(expected, rel=1e-12)


def test_the_loss_passes_the_gradient_check() -> None:
    assert torch.autograd.gradcheck(lambda scores: multi_label_loss(scores, LABELS), (logits(),))


def test_unknown_labels_get_no_gradient_even_from_infinite_logits() -> None:
    scores = logits().detach()
    scores[1] = math.inf
    scores.requires_grad_()
    multi_label_loss(scores, LABELS).backward()
    assert scores.grad is not None
    known = LABELS >= 0
    assert scores.grad[known].all()
    assert not scores.grad[~known].any()


def test_undecided_scores_cost_ln_2_and_right_ones_nothing() -> None:
    assert multi_label_loss(torch.zeros(3, 3), LABELS).item() == pytest.approx(math.log(2))
    sure = torch.where(LABELS == 1, 50.0, -50.0)
    assert multi_label_loss(sure, LABELS).item() == pytest.approx(0, abs=1e-12)


def test_masked_samples_and_batches_without_labels_count_nothing() -> None:
    scores = logits()
    mask = torch.tensor([True, True, False])
    masked = multi_label_loss(scores, LABELS, sample_mask=mask)
    torch.testing.assert_close(masked, multi_label_loss(scores[:2], LABELS[:2]))
    assert multi_label_loss(scores[1:2], LABELS[1:2]).item() == 0

"""The Dice loss is one ratio over a batch, by class or of all."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from distributed_pretrain.losses.soft_dice import soft_dice_loss


def drawn(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 2, 4, 5, generator=generator, dtype=torch.float64)
    masks = torch.rand(3, 2, 4, 5, generator=generator, dtype=torch.float64)
    return logits, torch.where(masks < 0.3, 0.0, masks)


def looped(logits: Tensor, masks: Tensor, groups: list[list[int]]) -> float:
    losses = []
    for classes in groups:
        overlap = predicted = marked = 0.0
        for row in range(len(logits)):
            for each in classes:
                of_class = (logits[row, each].flatten(), masks[row, each].flatten())
                for logit, mask in zip(*(each.tolist() for each in of_class), strict=True):
                    probability = 1 / (1 + math.exp(-logit))
                    overlap += probability * mask
                    predicted += probability
                    marked += mask
        losses.append(1 - 2 * overlap / (predicted + marked) if marked else 0.0)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("apart", [True, False])
def test_it_is_the_loop_of_its_equation(apart: bool) -> None:
    logits, masks = drawn()
    groups = [[0], [1]] if apart else [[0, 1]]
    found = soft_dice_loss(logits, masks, classes_apart=apart)
    assert found.item() == pytest.approx(looped(logits, masks, groups), rel=1e-12)


def test_a_class_without_a_positive_pixel_costs_nothing_and_teaches_nothing() -> None:
    logits, masks = drawn()
    masks[:, 1] = 0
    logits.requires_grad_()
    loss = soft_dice_loss(logits, masks)
    assert loss.item() == pytest.approx(looped(logits.detach(), masks, [[0], [1]]))
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad[:, 1].any()
    assert logits.grad[:, 0].any()


def test_it_goes_to_zero_and_one() -> None:
    _, masks = drawn()
    masks = masks.ceil()
    right = 60 * masks - 30
    assert soft_dice_loss(right, masks).item() == pytest.approx(0, abs=1e-9)
    assert soft_dice_loss(-right, masks).item() == pytest.approx(1, abs=1e-9)


def test_padded_samples_change_nothing_even_as_nan() -> None:
    logits, masks = drawn()
    more = torch.cat([logits, torch.full_like(logits[:1], math.nan)]).requires_grad_()
    real = torch.tensor([True, True, True, False])
    loss = soft_dice_loss(more, torch.cat([masks, masks[:1]]), sample_mask=real)
    assert loss.item() == pytest.approx(soft_dice_loss(logits, masks).item())
    loss.backward()
    assert more.grad is not None
    assert not more.grad[3].any()

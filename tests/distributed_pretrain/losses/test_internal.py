"""LIMITR's eq 6 against its loop, its limits, and what must not matter."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distributed_pretrain.losses.local import internal_loss

MASK = torch.arange(5) < torch.tensor([[3], [5], [1]])


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def attended() -> Tensor:
    return torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.fixture
def weights() -> Tensor:
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return logits.masked_fill(~MASK, -torch.inf).softmax(dim=1)


def naive(tokens: Tensor, attended: Tensor, weights: Tensor, temperature: float) -> Tensor:
    losses = []
    for v_all, m_all, weight_all, real in zip(tokens, attended, weights, MASK, strict=True):
        v, m, weight = v_all[real], m_all[real], weight_all[real]

        def similarity(one: Tensor, other: Tensor) -> Tensor:
            return torch.exp(F.cosine_similarity(one, other, dim=0) / temperature)

        total = torch.zeros((), dtype=tokens.dtype)
        for i in range(len(v)):
            own = similarity(v[i], m[i])
            to_attended = -torch.log(own / torch.stack([similarity(v[i], o) for o in m]).sum())
            to_tokens = -torch.log(own / torch.stack([similarity(o, m[i]) for o in v]).sum())
            total = total + weight[i] * (to_attended + to_tokens)
        losses.append(total)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_and_its_gradient_are_those_of_the_loop(
    tokens: Tensor,
    attended: Tensor,
    weights: Tensor,
    reduction: Literal["mean", "sum"],
    weighted: bool,
) -> None:
    inputs = (tokens.requires_grad_(), attended.requires_grad_())
    count = MASK.sum(dim=1, keepdim=True)
    uniform = MASK.double() / count
    omega = (weights if weighted else uniform) * (count if reduction == "sum" else 1)
    expected = naive(*inputs, omega, 0.2)
    found = internal_loss(
        *inputs, MASK, weights=weights if weighted else None, reduction=reduction, temperature=0.2
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs)
    )


def test_equal_vectors_give_twice_the_logarithm_of_their_number(tokens: Tensor) -> None:
    same = torch.ones_like(tokens)
    torch.testing.assert_close(
        internal_loss(same, same).item(), 2 * math.log(5), rtol=1e-12, atol=0
    )


def test_untrained_regions_swamp_the_rest_with_the_literal_sum() -> None:
    tokens, attended = torch.randn(2, 361, 768), torch.ones(1, 361, 768)
    literal = internal_loss(tokens[:1], attended, reduction="sum").item()
    assert literal == pytest.approx(2 * 361 * math.log(361), rel=0.01)  # the spec: about 4,250


def test_padding_changes_nothing_even_if_it_is_nan(
    tokens: Tensor, attended: Tensor, weights: Tensor
) -> None:
    expected = internal_loss(tokens, attended, MASK, weights=weights)
    for each in (tokens, attended, weights):
        each[~MASK] = torch.nan
    found = internal_loss(tokens.requires_grad_(), attended, MASK, weights=weights)
    torch.testing.assert_close(found, expected)
    found.backward()
    assert tokens.grad is not None
    assert (tokens.grad[~MASK] == 0).all()
    assert tokens.grad.isfinite().all()


def test_no_gradient_flows_into_the_weights(
    tokens: Tensor, attended: Tensor, weights: Tensor
) -> None:
    weights.requires_grad_()
    internal_loss(tokens.requires_grad_(), attended, MASK, weights=weights).backward()
    assert weights.grad is None


def test_masked_samples_leave_the_mean_and_none_gives_0(tokens: Tensor, attended: Tensor) -> None:
    sample_mask = torch.tensor([True, True, False])
    expected = internal_loss(tokens[:2], attended[:2], MASK[:2])
    tokens[2] = torch.nan
    found = internal_loss(tokens, attended, MASK, sample_mask=sample_mask)
    torch.testing.assert_close(found, expected)
    assert internal_loss(tokens, attended, MASK, sample_mask=sample_mask & False) == 0

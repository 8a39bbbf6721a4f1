from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from data_shards.errors import InputError
from distributed_pretrain.models.pooling import (
    AttentionPooling,
    max_of_tokens,
    mean_of_tokens,
    uniform_weights,
)


@pytest.fixture
def pooling() -> AttentionPooling:
    torch.manual_seed(0)
    pooling = AttentionPooling(16, heads=4).double()
    nn.init.normal_(pooling.in_proj_bias)
    nn.init.normal_(pooling.out_proj.bias)
    return pooling


@pytest.fixture
def tokens() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(3, 6, 16, dtype=torch.float64)


@pytest.fixture
def mask() -> Tensor:
    return torch.arange(6) < torch.tensor([[6], [1], [4]])


@pytest.mark.parametrize(("dim", "parameters"), [(2048, 16_785_408), (768, 2_362_368)])
def test_the_papers_numbers_of_parameters(dim: int, parameters: int) -> None:
    with torch.device("meta"):
        pooling = AttentionPooling(dim)
    assert sum(each.numel() for each in pooling.parameters()) == parameters


@pytest.mark.parametrize("masked", [False, True])
def test_it_is_multi_head_attention_with_the_mean_as_its_query(
    pooling: AttentionPooling, tokens: Tensor, mask: Tensor, masked: bool
) -> None:
    reference = nn.MultiheadAttention(16, 4, batch_first=True).double()
    reference.load_state_dict(pooling.state_dict())
    real = mask if masked else torch.ones_like(mask)
    query = torch.stack([each[kept].mean(dim=0) for each, kept in zip(tokens, real, strict=True)])
    expected, expected_weights = reference(query[:, None], tokens, tokens, key_padding_mask=~real)

    pooled, weights = pooling(tokens, mask if masked else None)
    torch.testing.assert_close(pooled, expected[:, 0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(weights, expected_weights[:, 0], rtol=1e-10, atol=1e-12)


def test_weights_sum_to_one_over_real_tokens(
    pooling: AttentionPooling, tokens: Tensor, mask: Tensor
) -> None:
    _, weights = pooling(tokens, mask)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3, dtype=torch.float64))
    assert not weights[~mask].any()


def test_padding_changes_neither_result_nor_gradient(
    pooling: AttentionPooling, tokens: Tensor, mask: Tensor
) -> None:
    clean = tokens.masked_fill(~mask[..., None], 0).requires_grad_()
    dirty = tokens.masked_fill(~mask[..., None], math.nan).requires_grad_()
    results = []
    for each in (clean, dirty):
        pooling.zero_grad()
        pooled, weights = pooling(each, mask)
        (pooled.square().sum() + weights.square().sum()).backward()
        gradients = [parameter.grad for parameter in pooling.parameters()]
        results.append([pooled, weights, each.grad, *gradients])
    for ours, expected in zip(results[1], results[0], strict=True):
        assert ours is not None
        assert expected is not None
        assert torch.equal(ours, expected)


def test_a_sample_without_tokens_stays_finite(pooling: AttentionPooling, tokens: Tensor) -> None:
    nothing = torch.zeros(3, 6, dtype=torch.bool)
    pooled, weights = pooling(tokens, nothing)
    pooled.sum().backward()
    assert pooled.isfinite().all()
    assert not weights.any()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in pooling.parameters())


def test_heads_must_divide_the_dimension() -> None:
    with pytest.raises(InputError, match="8 heads do not divide 100 dimensions"):
        AttentionPooling(100, heads=8)


def test_mean_and_maximum_are_those_of_real_tokens(tokens: Tensor, mask: Tensor) -> None:
    dirty = tokens.masked_fill(~mask[..., None], math.nan)
    for i in range(3):
        real = tokens[i, mask[i]]
        torch.testing.assert_close(mean_of_tokens(dirty, mask)[i], real.mean(dim=0))
        torch.testing.assert_close(max_of_tokens(dirty, mask)[i], real.amax(dim=0))


def test_uniform_weights_are_equal_on_real_tokens(mask: Tensor) -> None:
    assert uniform_weights(mask)[2].tolist() == [0.25, 0.25, 0.25, 0.25, 0, 0]

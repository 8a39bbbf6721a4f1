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
    pool_sentences,
    sum_word_pieces,
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


def test_a_sentence_is_the_maximum_over_its_tokens() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(2, 7, 5, dtype=torch.float64)
    # [CLS] s1 s1 s2 s2 s2 [SEP] and [CLS] s1 s1 s1 [SEP] with padding.
    index = torch.tensor([[-1, 0, 0, 1, 1, 1, -1], [-1, 0, 0, 0, -1, -1, -1]])
    mask = torch.tensor([[True, True], [True, False]])
    pooled = pool_sentences(tokens, index, mask)
    for i, j in [(0, 0), (0, 1), (1, 0)]:
        assert torch.equal(pooled[i, j], tokens[i, index[i] == j].amax(dim=0))
    assert not pooled[1, 1].any()


def test_the_gradient_of_the_maximum_is_that_of_a_loop_and_repeatable() -> None:
    # [CLS] s1 s1 s2 s2 s2 [SEP] and [CLS] s1 s1 s1 [SEP] with padding.
    index = torch.tensor([[-1, 0, 0, 1, 1, 1, -1], [-1, 0, 0, 0, -1, -1, -1]])
    mask = torch.tensor([[True, True], [True, False]])
    # Few distinct values, so that there are ties.
    tokens = torch.randint(3, (2, 7, 50)).double().requires_grad_()
    weights = torch.randn(2, 2, 50, dtype=torch.float64)
    loop = torch.stack([tokens[i, index[i] == j].amax(dim=0) for i, j in [(0, 0), (0, 1), (1, 0)]])
    (expected,) = torch.autograd.grad((loop * weights[mask]).sum(), tokens)
    runs = [
        torch.autograd.grad((pool_sentences(tokens, index, mask) * weights).sum(), tokens)[0]
        for _ in range(2)
    ]
    torch.testing.assert_close(runs[0], expected)
    assert torch.equal(*runs)


def test_words_are_the_sums_of_their_pieces() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(2, 7, 5, dtype=torch.float64)
    index = torch.tensor([[-1, 0, 1, 1, 1, 2, -1], [-1, 0, 0, -1, -1, -1, -1]])
    tokens[1, 3:] = float("nan")
    tokens.requires_grad_()
    words, mask = sum_word_pieces(tokens, index)
    assert mask.tolist() == [[True, True, True], [True, False, False]]
    for row, word in mask.nonzero().tolist():
        expected = torch.zeros(5, dtype=torch.float64)
        for token in range(7):
            if index[row, token] == word:
                expected = expected + tokens[row, token]
        torch.testing.assert_close(words[row, word], expected)
    assert not words[~mask].any()
    words.sum().backward()
    assert tokens.grad is not None
    assert torch.equal(tokens.grad, (index >= 0).double().unsqueeze(-1).expand(-1, -1, 5))


def test_further_columns_of_words_are_padding() -> None:
    tokens, index = torch.randn(1, 3, 4), torch.tensor([[-1, 0, -1]])
    words, mask = sum_word_pieces(tokens, index, words=3)
    assert mask.tolist() == [[True, False, False]]
    assert torch.equal(words[0, 0], tokens[0, 1])
    assert not words[0, 1:].any()

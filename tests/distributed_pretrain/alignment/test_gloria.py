"""GLoRIA's pair similarity against the loop that makes every attended vector."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distributed_pretrain.alignment.gloria import gloria_similarity
from distributed_pretrain.alignment.pairwise import products as pair_products
from distributed_pretrain.benchmark.pair_loops import gloria_loop

WORD_MASK = torch.arange(7) < torch.tensor([[3], [7], [1], [5]])
WORD_MASK[3, 1] = False


@pytest.fixture
def regions() -> Tensor:
    return torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def words() -> Tensor:
    return torch.randn(4, 7, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def naive(regions: Tensor, words: Tensor) -> Tensor:
    rows = []
    for image in regions:
        row = []
        for report, real in zip(words, WORD_MASK, strict=True):
            real_words = report[real]
            over_words = torch.stack([torch.softmax(real_words @ v, dim=0) for v in image])
            exponentials = torch.zeros((), dtype=regions.dtype)
            for place, word in enumerate(real_words):
                attention = torch.softmax(4 * over_words[:, place], dim=0)
                attended = torch.stack([a * v for a, v in zip(attention, image, strict=True)])
                cosine = F.cosine_similarity(attended.sum(dim=0), word, dim=0)
                exponentials = exponentials + torch.exp(5 * cosine)
            row.append(exponentials.log())
        rows.append(torch.stack(row))
    return torch.stack(rows)


@pytest.mark.parametrize("chunk_size", [None, 1, 2, 5])
def test_similarities_and_gradients_are_those_of_the_loops(
    chunk_size: int | None, regions: Tensor, words: Tensor
) -> None:
    regions.requires_grad_()
    words.requires_grad_()
    expected = naive(regions, words)
    found = gloria_similarity(regions, words, WORD_MASK, chunk_size=chunk_size)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    pair_weights = torch.linspace(0.5, 1.5, 12, dtype=torch.float64).view(3, 4)
    expected_gradients, found_gradients = (
        torch.autograd.grad((similarity * pair_weights).sum(), (regions, words))
        for similarity in (expected, found)
    )
    torch.testing.assert_close(found_gradients, expected_gradients, rtol=1e-9, atol=1e-10)


def test_a_graph_that_is_kept_gives_the_same_gradient_again(regions: Tensor, words: Tensor) -> None:
    loss = gloria_similarity(regions.requires_grad_(), words.requires_grad_(), WORD_MASK).sum()
    first = torch.autograd.grad(loss, (regions, words), retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, (regions, words)), first, rtol=0, atol=0)


def test_the_benchmark_s_loop_is_the_same(regions: Tensor, words: Tensor) -> None:
    torch.testing.assert_close(gloria_loop(regions, words, WORD_MASK), naive(regions, words))


def test_padding_changes_nothing_even_if_it_is_nan(regions: Tensor, words: Tensor) -> None:
    expected = gloria_similarity(regions, words, WORD_MASK)
    dirty = F.pad(words, (0, 0, 0, 2), value=torch.nan)
    mask = F.pad(WORD_MASK, (0, 2))
    dirty[~mask] = torch.nan
    found = gloria_similarity(regions.requires_grad_(), dirty.requires_grad_(), mask)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    assert regions.grad is not None
    assert regions.grad.isfinite().all()
    assert dirty.grad is not None
    assert (dirty.grad[~mask] == 0).all()
    assert dirty.grad.isfinite().all()


def test_a_report_without_words_is_0_and_a_single_pair_works(
    regions: Tensor, words: Tensor
) -> None:
    mask = WORD_MASK.clone()
    mask[2] = False
    similarity = gloria_similarity(regions, words.requires_grad_(), mask)
    assert (similarity[:, 2] == 0).all()
    similarity.sum().backward()
    assert words.grad is not None
    assert words.grad.isfinite().all()
    torch.testing.assert_close(
        gloria_similarity(regions[:1], words[:1], mask[:1]), similarity[:1, :1]
    )


def test_bfloat16_products_stay_near_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_products, "cpu_multiplies_bfloat16", lambda: True)
    generator = torch.Generator().manual_seed(3)
    regions = torch.randn(6, 50, 64, generator=generator).requires_grad_()
    words = torch.randn(6, 20, 64, generator=generator).requires_grad_()
    mask = torch.ones(6, 20, dtype=torch.bool)
    exact = torch.autograd.grad(gloria_similarity(regions, words, mask).sum(), (regions, words))
    with torch.autocast("cpu", torch.bfloat16):
        similarity = gloria_similarity(regions, words, mask)
    assert similarity.dtype == torch.float32
    rounded = torch.autograd.grad(similarity.sum(), (regions, words))
    for one, other in zip(rounded, exact, strict=True):
        assert 1e-6 < (one - other).norm() / other.norm() < 3e-2

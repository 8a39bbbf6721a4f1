"""MGCA's token-wise alignment and its token weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from distributed_pretrain.losses.token_alignment import clipped_weights, token_alignment_loss

BATCH, REGIONS, WORDS, DIM = 3, 4, 5, 6
WORD_MASK = torch.arange(WORDS) < torch.tensor([[5], [1], [3]])


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Regions, words, region weights and word weights."""
    generator = torch.Generator().manual_seed(4)
    regions = torch.randn(BATCH, REGIONS, DIM, generator=generator, dtype=torch.float64)
    words = torch.randn(BATCH, WORDS, DIM, generator=generator, dtype=torch.float64)
    region_weights = torch.rand(BATCH, REGIONS, generator=generator, dtype=torch.float64)
    word_weights = torch.rand(BATCH, WORDS, generator=generator, dtype=torch.float64) * WORD_MASK
    return (
        regions.requires_grad_(),
        words.requires_grad_(),
        region_weights / region_weights.sum(dim=1, keepdim=True),
        word_weights / word_weights.sum(dim=1, keepdim=True),
    )


def loss_of(
    regions: Tensor,
    words: Tensor,
    region_weights: Tensor,
    word_weights: Tensor,
    word_mask: Tensor = WORD_MASK,
    sample_mask: Tensor | None = None,
) -> Tensor:
    return token_alignment_loss(
        regions,
        words,
        word_mask,
        region_weights=region_weights,
        word_weights=word_weights,
        sample_mask=sample_mask,
    )


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a @ b / (a.norm() * b.norm())).detach())


def side(tokens: list[Tensor], others: list[Tensor], weights: list[float]) -> float:
    """Σ_j w_j (ℓ_j + ℓ'_j) / 2 for tokens that attend to `others`."""
    attended = []
    for token in tokens:
        scores = [math.exp(cosine(token, other) / 0.1) for other in others]
        attended.append(
            sum(
                (s / sum(scores) * o / o.norm() for s, o in zip(scores, others, strict=True)),
                torch.zeros(DIM, dtype=torch.float64),
            )
        )
    total = 0.0
    for j, (token, own, weight) in enumerate(zip(tokens, attended, weights, strict=True)):
        to_attended = [math.exp(cosine(token, each) / 0.1) for each in attended]
        to_tokens = [math.exp(cosine(own, each) / 0.1) for each in tokens]
        total -= weight * math.log(to_attended[j] / sum(to_attended)) / 2
        total -= weight * math.log(to_tokens[j] / sum(to_tokens)) / 2
    return total


def test_the_loss_is_that_of_a_loop_over_pairs_and_tokens() -> None:
    regions, words, region_weights, word_weights = inputs()
    expected = 0.0
    for sample in range(BATCH):
        count = int(WORD_MASK[sample].sum())
        own_regions, own_words = list(regions[sample]), list(words[sample, :count])
        report_side = side(own_words, own_regions, word_weights[sample, :count].tolist())
        image_side = side(own_regions, own_words, region_weights[sample].tolist())
        expected += (report_side + image_side) / 2 / BATCH
    loss = loss_of(regions, words, region_weights, word_weights)
    assert loss.item() == pytest.approx(expected, rel=1e-10)


def test_tokens_get_gradients_as_themselves_and_as_what_others_attend_to() -> None:
    regions, words, region_weights, word_weights = inputs()

    def loss(regions: Tensor, words: Tensor) -> Tensor:
        return loss_of(regions, words, region_weights, word_weights)

    assert torch.autograd.gradcheck(loss, (regions, words))


def test_a_pair_of_one_region_and_one_word_has_no_loss() -> None:
    regions, words, _, _ = inputs()
    one = torch.ones(BATCH, 1, dtype=torch.float64)
    loss = loss_of(regions[:, :1], words[:, :1], one, one, one.bool())
    assert loss.item() == pytest.approx(0, abs=1e-12)


def test_tokens_that_are_all_alike_give_the_logarithm_of_their_number() -> None:
    # Each then sees the same, and cannot be told from the others by it.
    _, words, region_weights, _ = inputs()
    alike = torch.ones(BATCH, REGIONS, DIM, dtype=torch.float64)
    full = WORD_MASK[:1].expand(BATCH, -1)
    weights = torch.full((BATCH, WORDS), 1 / WORDS, dtype=torch.float64)
    loss = loss_of(alike, torch.ones_like(words), region_weights, weights, full)
    assert loss.item() == pytest.approx((math.log(REGIONS) + math.log(WORDS)) / 2, rel=1e-12)


@pytest.mark.parametrize("padding", [7.0, math.nan])
def test_padded_words_and_masked_samples_change_neither_loss_nor_gradient(padding: float) -> None:
    regions, words, region_weights, word_weights = inputs()
    loss = loss_of(regions, words, region_weights, word_weights)
    expected = torch.autograd.grad(loss, (regions, words))

    def longer(values: Tensor, words: int = 0) -> Tensor:
        """A further sample, and `words` further tokens, of padding."""
        shape = (BATCH + 1, values.shape[1] + words, *values.shape[2:])
        padded = torch.full(shape, padding, dtype=torch.float64)
        padded[:BATCH, : values.shape[1]] = values.detach()
        return padded

    wide_mask = torch.zeros(BATCH + 1, WORDS + 2, dtype=torch.bool)
    wide_mask[:BATCH, :WORDS] = WORD_MASK
    wide_mask[BATCH] = True
    many_regions = longer(regions).requires_grad_()
    many_words = longer(words, 2)
    many_words[~wide_mask] = padding
    many_words.requires_grad_()
    masked = loss_of(
        many_regions,
        many_words,
        longer(region_weights),
        longer(word_weights, 2),
        wide_mask,
        torch.arange(BATCH + 1) < BATCH,
    )
    region_gradient, word_gradient = torch.autograd.grad(masked, (many_regions, many_words))
    torch.testing.assert_close(masked, loss)
    torch.testing.assert_close(region_gradient[:BATCH], expected[0])
    torch.testing.assert_close(word_gradient[:BATCH, :WORDS], expected[1])
    assert not region_gradient[BATCH].any()
    assert not word_gradient[:, WORDS:].any()
    assert not word_gradient[BATCH].any()


def test_bfloat16_tokens_give_a_float32_loss() -> None:
    regions, words, region_weights, word_weights = (each.detach().bfloat16() for each in inputs())
    with torch.autocast("cpu", torch.bfloat16):
        assert loss_of(regions, words, region_weights, word_weights).dtype == torch.float32


def test_weights_are_clipped_to_quantiles_of_the_real_tokens() -> None:
    generator = torch.Generator().manual_seed(0)
    attention = torch.rand(2, 12, generator=generator, dtype=torch.float64)
    attention[0, 3] = 50
    mask = torch.arange(12) < torch.tensor([[12], [7]])
    attention[1, 7:] = math.nan
    weights = clipped_weights(attention, mask)
    for row, count in enumerate((12, 7)):
        real = attention[row, :count]
        clipped = real.clip(real.quantile(0.1), real.quantile(0.9))
        torch.testing.assert_close(weights[row, :count], clipped / clipped.sum())
        assert not weights[row, count:].any()


def test_equal_attention_gives_equal_weights_and_no_token_none() -> None:
    mask = torch.tensor([[True, True, True], [False, False, False]])
    weights = clipped_weights(torch.full((2, 3), 0.2), mask)
    torch.testing.assert_close(weights[0], torch.full((3,), 1 / 3))
    assert not weights[1].any()

"""LIMITR's pair similarities against loops over pairs and tokens, and what must not matter."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor
from torch.nn import functional as F

from distributed_pretrain.alignment.limitr import LimitrSimilarity
from distributed_pretrain.alignment.pairwise import products as pair_products
from distributed_pretrain.alignment.variants import Variant
from distributed_pretrain.benchmark.pair_loops import limitr_loop
from tests.distributed_pretrain.alignment.limitr_loops import (
    DIM,
    IMAGES,
    REGION_MASK,
    REGIONS,
    REPORTS,
    WORD_MASK,
    WORDS,
    naive,
    naive_attention,
    naive_direction,
    similarity_of,
)

LAYERS = {"local_gate", "global_gate", "score", "report_head", "image_head"}
VARIANTS: tuple[Variant, ...] = ("paper", "authors")
each_variant = pytest.mark.parametrize("variant", VARIANTS)


@pytest.fixture
def regions() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(IMAGES, REGIONS, DIM, generator=generator, dtype=torch.float64)


@pytest.fixture
def words() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(REPORTS, WORDS, DIM, generator=generator, dtype=torch.float64)


def total(sides: tuple[Tensor, Tensor]) -> Tensor:
    """A number with another weight for every pair and side."""
    joined = torch.cat([side.flatten() for side in sides])
    return (joined * torch.linspace(0.5, 1.5, len(joined), dtype=joined.dtype)).sum()


def with_masks(
    module: LimitrSimilarity, word_mask: Tensor, region_mask: Tensor | None = None
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    return lambda regions, words: module(regions, words, word_mask, region_mask)


def gradients(
    module: LimitrSimilarity,
    similarity: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    regions: Tensor,
    words: Tensor,
) -> dict[str, Tensor]:
    regions, words = (each.clone().requires_grad_() for each in (regions, words))
    module.zero_grad()
    total(similarity(regions, words)).backward()
    found = {"regions": regions.grad, "words": words.grad}
    found |= {name: parameter.grad for name, parameter in module.named_parameters()}
    complete = {name: gradient for name, gradient in found.items() if gradient is not None}
    assert complete.keys() == found.keys(), "every parameter must get a gradient"
    return {name: gradient.clone() for name, gradient in complete.items()}


@each_variant
@pytest.mark.parametrize("chunk_size", [None, 1, 2, 5])
def test_similarities_and_gradients_are_those_of_the_loops(
    variant: Variant, chunk_size: int | None, regions: Tensor, words: Tensor
) -> None:
    module = similarity_of(variant, chunk_size)
    expected = naive(module, regions, words)
    found = module(regions, words, WORD_MASK, REGION_MASK)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    expected_gradients = gradients(
        module, lambda regions, words: naive(module, regions, words), regions, words
    )
    found_gradients = gradients(module, with_masks(module, WORD_MASK, REGION_MASK), regions, words)
    torch.testing.assert_close(found_gradients, expected_gradients, rtol=1e-9, atol=1e-10)


@each_variant
def test_a_graph_that_is_kept_gives_the_same_gradient_again(
    variant: Variant, regions: Tensor, words: Tensor
) -> None:
    sides = similarity_of(variant)(regions.requires_grad_(), words.requires_grad_(), WORD_MASK)
    loss = total(sides)
    first = torch.autograd.grad(loss, (regions, words), retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, (regions, words)), first, rtol=0, atol=0)


def test_the_benchmark_s_loop_is_the_authors_variant(regions: Tensor, words: Tensor) -> None:
    module = similarity_of("authors")
    expected = naive(module, regions, words, region_mask=torch.ones_like(REGION_MASK))
    torch.testing.assert_close(limitr_loop(module, regions, words, WORD_MASK), expected)


@each_variant
def test_padding_changes_nothing_even_if_it_is_nan(
    variant: Variant, regions: Tensor, words: Tensor
) -> None:
    module = similarity_of(variant)
    expected = gradients(module, with_masks(module, WORD_MASK, REGION_MASK), regions, words)
    dirty_regions = F.pad(regions, (0, 0, 0, 3), value=torch.nan)
    dirty_words = F.pad(words, (0, 0, 0, 2), value=torch.nan)
    region_mask, word_mask = F.pad(REGION_MASK, (0, 3)), F.pad(WORD_MASK, (0, 2))
    dirty_regions[~region_mask] = torch.nan
    dirty_words[~word_mask] = torch.nan
    found = gradients(
        module, with_masks(module, word_mask, region_mask), dirty_regions, dirty_words
    )
    for name in ("regions", "words"):
        mask = region_mask if name == "regions" else word_mask
        assert (found[name][~mask] == 0).all()
        found[name] = found[name][:, : expected[name].shape[1]]
    torch.testing.assert_close(found, expected)


@each_variant
def test_a_batch_without_a_lateral_is_as_if_there_were_no_lateral_views(
    variant: Variant, regions: Tensor, words: Tensor
) -> None:
    module = similarity_of(variant)
    with_places = torch.cat([regions, torch.full_like(regions, torch.nan)], dim=1)
    region_mask = torch.arange(2 * REGIONS) < torch.full((IMAGES, 1), REGIONS)
    torch.testing.assert_close(
        module(with_places, words, WORD_MASK, region_mask), module(regions, words, WORD_MASK)
    )


@each_variant
def test_one_image_and_one_report_of_one_word_work(
    variant: Variant, regions: Tensor, words: Tensor
) -> None:
    module = similarity_of(variant)
    mask = torch.ones(1, 1, dtype=torch.bool)
    report_side, image_side = module(regions[:1], words[:1, :1], mask)
    assert report_side.shape == image_side.shape == (1, 1)
    expected = naive(module, regions[:1], words[:1, :1], mask, torch.ones_like(REGION_MASK[:1]))
    torch.testing.assert_close((report_side, image_side), expected)


@each_variant
def test_a_report_without_words_and_vectors_of_zeros_leave_everything_finite(
    variant: Variant, regions: Tensor, words: Tensor
) -> None:
    module = similarity_of(variant)
    word_mask = WORD_MASK.clone()
    word_mask[2] = False
    regions[0, 0] = 0
    words[1, 0] = 0
    found = gradients(
        module, lambda regions, words: module(regions, words, word_mask), regions, words
    )
    assert all(gradient.isfinite().all() for gradient in found.values())
    assert (found["words"][2] == 0).all()


def test_the_authors_state_is_five_layers() -> None:
    state = similarity_of("authors").state_dict()
    assert state.keys() == {f"{layer}.{part}" for layer in LAYERS for part in ("weight", "bias")}


def test_dropout_is_the_same_for_any_chunks_and_any_padding(regions: Tensor, words: Tensor) -> None:
    def found(chunk_size: int | None, padding: int) -> dict[str, Tensor]:
        module = similarity_of("authors", chunk_size).train()
        mask = F.pad(WORD_MASK, (0, padding))

        def seeded(regions: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
            torch.manual_seed(7)
            padded_words = F.pad(words, (0, 0, 0, padding))
            sides: tuple[Tensor, Tensor] = module(regions, padded_words, mask, REGION_MASK)
            return sides

        return gradients(module, seeded, regions, words)

    expected = found(None, 0)
    for chunk_size, padding in ((1, 0), (3, 4)):
        torch.testing.assert_close(found(chunk_size, padding), expected)


def test_dropout_differs_between_calls_and_ends_with_training(
    regions: Tensor, words: Tensor
) -> None:
    module = similarity_of("authors").train()
    first, second = (module(regions, words, WORD_MASK)[0] for _ in range(2))
    assert not torch.allclose(first, second)
    module.eval()
    first, second = (module(regions, words, WORD_MASK)[0] for _ in range(2))
    assert torch.equal(first, second)


def test_gradients_with_dropout_are_those_of_finite_differences(
    regions: Tensor, words: Tensor
) -> None:
    module = similarity_of("authors", chunk_size=2).train()

    def seeded(regions: Tensor, words: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        torch.manual_seed(7)
        sides: tuple[Tensor, Tensor] = module(regions, words, WORD_MASK, REGION_MASK)
        return sides

    inputs = (regions.requires_grad_(), words.requires_grad_(), *module.parameters())
    assert torch.autograd.gradcheck(seeded, inputs, fast_mode=True)


@each_variant
def test_bfloat16_products_stay_near_float32(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Slow without the instructions, but the same roundings.
    monkeypatch.setattr(pair_products, "cpu_multiplies_bfloat16", lambda: True)
    torch.manual_seed(3)
    module = LimitrSimilarity(64, variant).eval()
    regions, words = torch.randn(6, 50, 64), torch.randn(6, 20, 64)
    word_mask = torch.arange(20) < torch.tensor([[20], [9], [14], [3], [20], [11]])

    def half(regions: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            sides: tuple[Tensor, Tensor] = module(regions, words, word_mask)
        assert sides[0].dtype == torch.float32
        return sides

    exact = gradients(
        module, lambda regions, words: module(regions, words, word_mask), regions, words
    )
    rounded = gradients(module, half, regions, words)
    for name in ("regions", "words", "report_head.weight"):
        error = (rounded[name] - exact[name]).norm() / exact[name].norm()
        assert 1e-6 < error < 3e-2, name


@each_variant
def test_matched_pairs_are_those_of_the_loops(
    variant: Variant, regions: Tensor, words: Tensor
) -> None:
    module = similarity_of(variant)
    words, word_mask = words[:IMAGES], WORD_MASK[:IMAGES]
    matched = module.matched(regions, words.requires_grad_(), word_mask, REGION_MASK)
    for pair, (real_regions, real_words) in enumerate(zip(REGION_MASK, word_mask, strict=True)):
        v, t = regions[pair][real_regions], words[pair][real_words]
        for queries, keys, attended, weights, real in (
            (t, v, matched.attended_words, matched.word_weights, real_words),
            (v, t, matched.attended_regions, matched.region_weights, real_regions),
        ):
            expected_attended, expected_weights, _ = naive_direction(module, queries, keys)
            torch.testing.assert_close(attended[pair][real], expected_attended)
            torch.testing.assert_close(weights[pair][real], expected_weights)
            assert (attended[pair][~real] == 0).all()
            assert (weights[pair][~real] == 0).all()
    assert matched.attended_regions.requires_grad
    assert not matched.region_weights.requires_grad


@each_variant
def test_a_phrase_looks_where_its_real_words_look_on_average(
    variant: Variant, regions: Tensor, words: Tensor
) -> None:
    module = similarity_of(variant)
    words, word_mask = words[:IMAGES], WORD_MASK[:IMAGES]
    found = module.phrase_attention(regions, words, word_mask, REGION_MASK)
    for pair, (real_regions, real_words) in enumerate(zip(REGION_MASK, word_mask, strict=True)):
        attention = naive_attention(
            words[pair][real_words], regions[pair][real_regions], module.variant
        )
        torch.testing.assert_close(found[pair][real_regions], attention.mean(dim=0))
        assert (found[pair][~real_regions] == 0).all()


def test_a_mask_of_another_size_is_refused(regions: Tensor, words: Tensor) -> None:
    with pytest.raises(TypeCheckError):
        similarity_of("paper")(regions, words, WORD_MASK[:, 1:])

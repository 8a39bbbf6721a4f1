from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn.functional import cosine_similarity, normalize

from distributed_pretrain.batch import text_ids
from distributed_pretrain.losses.sentence_region_contrast import (
    pooled_fit,
    sentence_region_contrast,
)

BATCH, SENTENCES, REGIONS, DIM = 4, 3, 5, 6
TAU = 0.2
# Reports of 3, 1, 2 and 3 sentences. The first and the third share one, the last says one twice.
IDS = [[7, 8, 9], [5], [8, 4], [3, 2, 3]]


def inputs(requires_grad: bool = False) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(1)
    sentences = torch.randn(BATCH, SENTENCES, DIM, generator=random, dtype=torch.float64)
    regions = torch.randn(BATCH, REGIONS, DIM, generator=random, dtype=torch.float64)
    mask = torch.tensor([[m < len(each) for m in range(SENTENCES)] for each in IDS])
    ids = torch.tensor([each + [99] * (SENTENCES - len(each)) for each in IDS])
    return {
        "sentences": sentences.requires_grad_(requires_grad),
        "regions": regions.requires_grad_(requires_grad),
        "sentence_mask": mask,
        "sentence_ids": ids,
    }


def contrast(given: dict[str, Tensor], **more: Any) -> Tensor:
    return sentence_region_contrast(**{"temperature": TAU, "most_sentences": 9, **given, **more})


def by_loops(
    given: dict[str, Tensor],
    reports: Sequence[Sequence[Hashable]],
    weights: list[list[float]] | None = None,
    *,
    tau: float = TAU,
) -> float:
    """The loss of reports by their texts, of `given` sentences and regions."""

    def fit(b: int, m: int, image: int) -> float:
        sentence, regions = given["sentences"][b, m], given["regions"][image]
        cosines = cosine_similarity(sentence[None], regions).tolist()
        return math.log(sum(math.exp(each / tau) for each in cosines) / len(cosines))

    total = count = 0.0
    for b, report in enumerate(reports):
        for m, text in enumerate(report):
            own = fit(b, m, b)
            images = [fit(b, m, i) for i, held in enumerate(reports) if i == b or text not in held]
            sentences = [own] + [
                fit(i, n, b)
                for i, other in enumerate(reports)
                for n, said in enumerate(other)
                if said not in report
            ]
            losses = [math.log(sum(map(math.exp, each))) - own for each in (images, sentences)]
            weight = weights[b][m] if weights else 1.0
            total += weight * sum(losses) / 2
            count += weight
    return total / count


@pytest.mark.parametrize("chunk_size", [None, 1, 5, 100])
def test_the_loss_is_its_formula_in_loops(chunk_size: int | None) -> None:
    given = inputs()
    loss = contrast(given, chunk_size=chunk_size)
    assert loss.item() == pytest.approx(by_loops(given, IDS), rel=1e-12)


def test_sentences_may_count_by_weights_which_get_no_gradient() -> None:
    given = inputs()
    weights = torch.rand(BATCH, SENTENCES, dtype=torch.float64, requires_grad=True)
    loss = contrast(
        given | {"sentences": given["sentences"].requires_grad_()}, sentence_weights=weights
    )
    assert loss.item() == pytest.approx(by_loops(given, IDS, weights.tolist()), rel=1e-12)
    loss.backward()
    assert weights.grad is None


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_gradients_are_those_of_finite_differences(chunk_size: int | None) -> None:
    given = inputs(requires_grad=True)
    temperature = torch.tensor([TAU], dtype=torch.float64, requires_grad=True)

    def loss(sentences: Tensor, regions: Tensor, temperature: Tensor) -> Tensor:
        changed = given | {"sentences": sentences, "regions": regions}
        return contrast(changed, temperature=temperature, chunk_size=chunk_size)

    assert torch.autograd.gradcheck(loss, (given["sentences"], given["regions"], temperature))


def test_the_same_text_is_no_negative_of_itself() -> None:
    """What an image of a report with the same sentence shows pushes nothing away."""
    given = inputs()
    shared = contrast(given)
    apart = contrast(given | {"sentence_ids": torch.arange(BATCH * SENTENCES).view(BATCH, -1)})
    assert apart > shared
    ids = [[7, 8, 9], [5], [18, 4], [3, 2, 33]]
    assert apart.item() == pytest.approx(by_loops(given, ids), rel=1e-12)


@pytest.mark.parametrize("images", [1, 2, BATCH])
def test_regions_that_do_not_depend_on_the_image_cost_ln_of_the_number_of_images(
    images: int,
) -> None:
    """However tellable apart, they do not serve as slots that sentences look up."""
    given = {name: each[:images] for name, each in inputs().items()}
    given["regions"] = given["regions"][:1].expand(images, -1, -1)
    given["sentence_mask"] = torch.arange(SENTENCES).expand(images, -1) == 0
    given["sentence_ids"] = torch.arange(images * SENTENCES).view(images, -1)
    said = normalize(given["sentences"][:, 0], dim=-1)
    fit = pooled_fit(said / TAU, normalize(given["regions"], dim=-1))
    torch.testing.assert_close(fit, fit[:, :1].expand_as(fit))
    over_sentences = fit.logsumexp(dim=0).mean() - fit[:, 0].mean()
    expected = (math.log(images) + over_sentences.item()) / 2
    assert contrast(given).item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("padding", [0.0, math.nan, math.inf])
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_padding_changes_neither_loss_nor_gradient(padding: float, chunk_size: int | None) -> None:
    given = inputs(requires_grad=True)
    wanted = contrast(given, chunk_size=chunk_size)
    expected = torch.autograd.grad(wanted, [given["sentences"], given["regions"]])

    filled = inputs()
    for name, wide in (
        ("sentences", (BATCH + 2, SENTENCES + 2, DIM)),
        ("regions", (BATCH + 2, REGIONS, DIM)),
    ):
        values = torch.full(wide, padding, dtype=torch.float64)
        values[1:-1, : filled[name].shape[1]] = filled[name]
        if name == "sentences":
            values[1:-1, :SENTENCES][~filled["sentence_mask"]] = padding
        filled[name] = values.requires_grad_()
    mask = torch.ones(BATCH + 2, SENTENCES + 2, dtype=torch.bool)
    mask[1:-1, SENTENCES:] = False
    mask[1:-1, :SENTENCES] = filled["sentence_mask"]
    ids = torch.full((BATCH + 2, SENTENCES + 2), 8)
    ids[1:-1, :SENTENCES] = filled["sentence_ids"]
    filled |= {"sentence_mask": mask, "sentence_ids": ids}
    real = torch.tensor([False, *[True] * BATCH, False])
    loss = contrast(filled, sample_mask=real, chunk_size=chunk_size)
    torch.testing.assert_close(loss, wanted, rtol=1e-12, atol=0)
    found = torch.autograd.grad(loss, [filled["sentences"], filled["regions"]])
    torch.testing.assert_close(found[0][1:-1, :SENTENCES], expected[0])
    torch.testing.assert_close(found[1][1:-1], expected[1])
    assert all(each[[0, -1]].eq(0).all() for each in found)


@pytest.mark.parametrize(
    "case", ["one image", "equal reports", "nothing real", "no sentence at all"]
)
def test_a_batch_without_negatives_has_no_loss_and_no_gradient(case: str) -> None:
    given = inputs()
    mask = None
    if case == "one image":
        given = {name: each[:1] for name, each in given.items()}
    elif case == "equal reports":
        given |= {
            "sentence_mask": torch.ones(BATCH, SENTENCES, dtype=torch.bool),
            "sentence_ids": torch.tensor([[1, 2, 3]] * BATCH),
        }
    elif case == "no sentence at all":
        given |= {name: given[name][:, :0] for name in given if name.startswith("sentence")}
    else:
        mask = torch.zeros(BATCH, dtype=torch.bool)
    leaves = [given[name].requires_grad_() for name in ("sentences", "regions")]
    loss = contrast(given, sample_mask=mask)
    assert loss.item() == pytest.approx(0, abs=1e-12)
    for gradient in torch.autograd.grad(loss, leaves):
        assert (gradient.abs() < 1e-12).all()


def test_half_precision_is_raised_to_float32() -> None:
    given = inputs()
    exact = contrast(given)
    low = {
        name: each.bfloat16() if each.is_floating_point() else each for name, each in given.items()
    }
    raised = contrast(
        {name: each.float() if each.is_floating_point() else each for name, each in low.items()}
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = contrast(low)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, raised)
    assert loss.item() == pytest.approx(exact.item(), rel=2e-2)


def test_chunks_keep_no_product_of_sentences_and_regions_for_backward() -> None:
    rows = torch.randn(64, 8, requires_grad=True)
    regions = torch.randn(16, 32, 8, requires_grad=True)
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        pooled_fit(rows, regions, chunk_size=8)
    assert max(kept) == 16 * 32 * 8


def test_texts_are_told_apart_by_their_tokens_in_order() -> None:
    tokens = torch.tensor([[1, 5, 6, 7, 6, 5, 7, 2], [1, 7, 5, 6, 0, 5, 6, 2]])
    index = torch.tensor([[-1, 0, 0, 1, 2, 2, 3, -1], [-1, 0, 1, 1, 2, 3, 3, -1]])
    ids = text_ids(tokens, index, 4)
    same = [
        [(b, m) for b in range(2) for m in range(4) if ids[b, m] == one] for one in ids.unique()
    ]
    assert sorted(same) == [[(0, 0), (1, 1), (1, 3)], [(0, 1), (0, 3), (1, 0)], [(0, 2)], [(1, 2)]]
    assert (ids >= 0).all()


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_the_host_never_waits_for_a_number(chunk_size: int | None) -> None:
    """Tensors without data have none to wait for."""
    with FakeTensorMode():
        sentences = torch.empty(BATCH, SENTENCES, DIM, requires_grad=True)
        regions = torch.empty(BATCH, REGIONS, DIM, requires_grad=True)
        tokens = torch.empty(BATCH, 12, dtype=torch.long)
        mask = torch.empty(BATCH, SENTENCES, dtype=torch.bool)
        loss = sentence_region_contrast(
            sentences,
            regions,
            sentence_mask=mask,
            sentence_ids=text_ids(tokens, tokens, SENTENCES),
            most_sentences=9,
            sentence_weights=torch.empty(BATCH, SENTENCES),
            chunk_size=chunk_size,
            sample_mask=mask[:, 0],
        )
        loss.backward()
        assert sentences.grad is not None
        assert regions.grad is not None
        with pytest.raises(DataDependentOutputException):
            loss.item()


def test_more_sentences_than_ranks_exchange_are_refused() -> None:
    with pytest.raises(ValueError, match="more than the most of 1"):
        contrast(inputs(), most_sentences=1)

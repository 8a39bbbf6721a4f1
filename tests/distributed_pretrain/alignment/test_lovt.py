from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from distributed_pretrain.alignment.lovt import LovtAlignment
from distributed_pretrain.models.norms.kinds import Norm

DIM = 6


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    regions = torch.randn(3, 4, DIM, dtype=torch.float64)
    sentences = torch.randn(3, 5, DIM, dtype=torch.float64)
    mask = torch.arange(5) < torch.tensor([[5], [1], [3]])
    return regions, sentences, mask


def alignment(*, bias: bool = False, output_norm: Norm | None = None) -> LovtAlignment:
    torch.manual_seed(1)
    return LovtAlignment(DIM, bias=bias, output_norm=output_norm).double()


def test_it_is_equations_1_and_2() -> None:
    regions, sentences, mask = inputs()
    model = alignment()
    q, v, o = (linear.weight.detach() for linear in (model.query, model.value, model.output))
    aligned = model(regions, sentences, mask)

    def attend(query: Tensor, items: Tensor) -> Tensor:
        scores = [float((q @ query) @ (q @ item)) / math.sqrt(DIM) for item in items]
        total = sum(math.exp(score) for score in scores)
        mean = torch.zeros(DIM, dtype=torch.float64)
        for score, item in zip(scores, items, strict=True):
            mean = mean + math.exp(score) / total * (v @ item)
        return o @ mean

    for i in range(len(mask)):
        real = sentences[i, mask[i]]
        for m, sentence in enumerate(real):
            torch.testing.assert_close(
                aligned.sentences_from_image[i, m],
                attend(sentence, regions[i]),
                rtol=1e-10,
                atol=1e-12,
            )
        for k, region in enumerate(regions[i]):
            torch.testing.assert_close(
                aligned.regions_from_report[i, k], attend(region, real), rtol=1e-10, atol=1e-12
            )


def test_regions_that_are_alike_are_all_that_a_sentence_sees() -> None:
    # Its attention sums to one over what is real, and so does that of a region.
    regions, sentences, mask = inputs()
    model = alignment()
    one_region, one_sentence = regions[:, :1], sentences[:, :1]
    aligned = model(one_region.expand(-1, 4, -1), one_sentence.expand(-1, 5, -1), mask)
    of_region, of_sentence = (
        model.output(model.value(each)) for each in (one_region, one_sentence)
    )
    seen = aligned.sentences_from_image[mask]
    torch.testing.assert_close(seen, of_region.expand(-1, 5, -1)[mask])
    torch.testing.assert_close(aligned.regions_from_report, of_sentence.expand(-1, 4, -1))


@pytest.mark.parametrize("output_norm", ["sync", "frozen", "group", None])
def test_padded_sentences_change_neither_result_nor_gradient(output_norm: Norm | None) -> None:
    regions, sentences, mask = inputs()
    results = []
    for padding in (0.0, math.nan):
        model = alignment(bias=True, output_norm=output_norm)
        padded = sentences.masked_fill(~mask[..., None], padding).requires_grad_()
        aligned = model(regions, padded, mask)
        loss = aligned.regions_from_report.square().sum()
        loss = loss + aligned.sentences_from_image[mask].pow(3).sum()
        loss.backward()
        assert padded.grad is not None
        assert not padded.grad[~mask].any()
        results.append([loss, padded.grad, *(each.grad for each in model.parameters())])
    for ours, expected in zip(*results, strict=True):
        assert ours is not None
        assert expected is not None
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


def test_the_authors_switches_have_their_number_of_parameters() -> None:
    with torch.device("meta"):
        authors, paper = LovtAlignment(512, bias=True, output_norm="sync"), LovtAlignment(512)
    assert sum(each.numel() for each in authors.parameters()) == 788_992
    assert sum(each.numel() for each in paper.parameters()) == 3 * 512 * 512

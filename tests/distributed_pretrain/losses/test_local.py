from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from distributed_pretrain.losses.local import local_image_loss, local_report_loss, positiveness

GRID = (2, 3)


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def regions_and_weights(batch: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    regions, attended = random(2, batch, 6, 4).unbind()
    weights = random(batch, 6, seed=1).softmax(dim=1)
    return regions.requires_grad_(), attended.requires_grad_(), weights


def sentences_and_weights() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Three reports of 4, 1 and 2 sentences."""
    sentences, attended = random(2, 3, 4, 5).unbind()
    mask = torch.arange(4) < torch.tensor([[4], [1], [2]])
    weights = random(3, 4, seed=1).masked_fill(~mask, -math.inf).softmax(dim=1)
    return sentences.requires_grad_(), attended.requires_grad_(), mask, weights


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a @ b / (a.norm() * b.norm())).detach())


def test_positiveness_is_equation_9() -> None:
    rows, columns = GRID
    cells = [(y, x) for y in range(rows) for x in range(columns)]
    sharpness, cutoff = 0.7, 0.6
    for k, first in enumerate(cells):
        weights = []
        for second in cells:
            distance = math.dist(first, second) / math.hypot(rows, columns)
            weights.append(math.exp(-distance / sharpness) if distance <= cutoff else 0.0)
        expected = torch.tensor(weights, dtype=torch.float64) / sum(weights)
        ours = positiveness(GRID, sharpness=sharpness, cutoff=cutoff)[k]
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=0)


def test_positiveness_of_the_papers_grid() -> None:
    p = positiveness((7, 7))
    assert int((p[0] > 0).sum()) == 22
    assert int((p[24] > 0).sum()) == 49
    assert p[0, 0].item() == pytest.approx(0.0604, abs=5e-5)
    assert p[24, 24].item() == pytest.approx(0.0265, abs=5e-5)


def test_a_region_at_exactly_the_cutoff_is_a_positive() -> None:
    # On 6 x 8 the diagonal is 10 long, and 3 rows down and 4 columns right is 5.
    p = positiveness((6, 8), cutoff=0.5)
    assert p[0, 3 * 8 + 4] > 0
    assert p[0, 3 * 8 + 5] == 0


def test_a_cutoff_of_zero_leaves_each_region_itself() -> None:
    assert torch.equal(positiveness(GRID, cutoff=0.0), torch.eye(6, dtype=torch.float64))


def test_the_entropy_floor_of_the_papers_grid() -> None:
    p = positiveness((7, 7))
    entropy = -torch.special.xlogy(p, p).sum(dim=1)
    assert entropy.mean().item() == pytest.approx(3.525, abs=5e-4)
    assert entropy.min().item() == pytest.approx(3.083, abs=5e-4)
    assert entropy.max().item() == pytest.approx(3.887, abs=5e-4)


def test_the_local_image_loss_is_equations_6_to_8() -> None:
    regions, attended, weights = regions_and_weights()
    tau = 0.3
    p = positiveness(GRID)
    batch, count = weights.shape
    expected = 0.0
    for i in range(batch):
        for k in range(count):
            forward = [math.exp(cosine(regions[i, k], attended[i, j]) / tau) for j in range(count)]
            backward = [math.exp(cosine(attended[i, k], regions[i, j]) / tau) for j in range(count)]
            for j in range(count):
                cross = math.log(forward[j] / sum(forward)) + math.log(backward[j] / sum(backward))
                expected -= float(weights[i, k] * p[k, j]) * cross / (2 * batch)
    loss = local_image_loss(regions, attended, weights, grid=GRID)
    assert loss.item() == pytest.approx(expected, rel=1e-10)


def test_equal_regions_give_the_logarithm_of_their_number() -> None:
    ones = torch.ones(2, 49, 3, dtype=torch.float64)
    weights = torch.full((2, 49), 1 / 49, dtype=torch.float64)
    loss = local_image_loss(ones, ones, weights, grid=(7, 7))
    assert loss.item() == pytest.approx(math.log(49), rel=1e-10)


def test_the_local_report_loss_is_equations_10_to_12() -> None:
    sentences, attended, mask, weights = sentences_and_weights()
    tau = 0.3
    expected = 0.0
    for i in range(len(mask)):
        real = range(int(mask[i].sum()))
        for m in real:
            own = math.exp(cosine(sentences[i, m], attended[i, m]) / tau)
            forward = sum(math.exp(cosine(sentences[i, m], attended[i, j]) / tau) for j in real)
            backward = sum(math.exp(cosine(attended[i, m], sentences[i, j]) / tau) for j in real)
            cross = math.log(own / forward) + math.log(own / backward)
            expected -= float(weights[i, m]) * cross / (2 * len(mask))
    loss = local_report_loss(sentences, attended, mask, weights)
    assert loss.item() == pytest.approx(expected, rel=1e-10)


def test_a_report_of_one_sentence_has_no_local_loss() -> None:
    sentences, attended, mask, weights = sentences_and_weights()
    assert local_report_loss(sentences[1:2], attended[1:2], mask[1:2], weights[1:2]).item() == 0


@pytest.mark.parametrize("padding", [7.0, math.nan])
def test_padded_sentences_change_neither_loss_nor_gradient(padding: float) -> None:
    sentences, attended, mask, weights = sentences_and_weights()
    temperature = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    loss = local_report_loss(sentences, attended, mask, weights, temperature=temperature)
    expected = torch.autograd.grad(loss, (sentences, attended, temperature))

    def pad(values: Tensor) -> Tensor:
        wider = torch.cat([values.detach(), values.detach()[:, :2]], dim=1)
        wider[~wide_mask] = padding
        return wider

    wide_mask = torch.cat([mask, torch.zeros(3, 2, dtype=torch.bool)], dim=1)
    wide_sentences, wide_attended = (pad(each).requires_grad_() for each in (sentences, attended))
    padded = local_report_loss(
        wide_sentences, wide_attended, wide_mask, pad(weights), temperature=temperature
    )
    gradients = torch.autograd.grad(padded, (wide_sentences, wide_attended, temperature))

    torch.testing.assert_close(padded, loss, rtol=1e-12, atol=0)
    for ours, reference in zip(gradients[:2], expected[:2], strict=True):
        torch.testing.assert_close(ours[wide_mask], reference[mask], rtol=1e-10, atol=1e-14)
        assert not ours[~wide_mask].any()
    torch.testing.assert_close(gradients[2], expected[2], rtol=1e-10, atol=0)


def test_masked_samples_leave_both_local_losses() -> None:
    regions, attended, region_weights = regions_and_weights()
    sentences, seen, mask, sentence_weights = sentences_and_weights()
    kept = torch.tensor([True, False, True])
    temperature = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)

    def both(
        image: tuple[Tensor, ...], report: tuple[Tensor, ...], sample_mask: Tensor | None
    ) -> Tensor:
        return local_image_loss(
            *image, grid=GRID, temperature=temperature, sample_mask=sample_mask
        ) + local_report_loss(*report, temperature=temperature, sample_mask=sample_mask)

    image, report = (regions, attended, region_weights), (sentences, seen, mask, sentence_weights)
    expected = both(
        (regions[kept], attended[kept], region_weights[kept]),
        (sentences[kept], seen[kept], mask[kept], sentence_weights[kept]),
        None,
    )
    (expected_gradient,) = torch.autograd.grad(expected, temperature)
    for tensor in (*image, *report):
        if tensor.is_floating_point():
            tensor.data[1] = math.nan
    loss = both(image, report, kept)
    gradients = torch.autograd.grad(loss, (temperature, regions, attended, sentences, seen))

    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradients[0], expected_gradient, rtol=1e-10, atol=0)
    assert all(not gradient[1].any() for gradient in gradients[1:])


def test_no_gradient_flows_into_the_weights() -> None:
    regions, attended, region_weights = regions_and_weights()
    sentences, seen, mask, sentence_weights = sentences_and_weights()
    region_weights.requires_grad_()
    sentence_weights.requires_grad_()
    loss = local_image_loss(regions, attended, region_weights, grid=GRID)
    loss = loss + local_report_loss(sentences, seen, mask, sentence_weights)
    loss.backward()
    assert regions.grad is not None
    assert region_weights.grad is None
    assert sentence_weights.grad is None


def test_autocast_does_not_lower_the_precision_of_local_losses() -> None:
    regions, attended, weights = (each.detach().float() for each in regions_and_weights())
    sentences, seen, mask, sentence_weights = (each.detach() for each in sentences_and_weights())
    with torch.autocast("cpu", torch.bfloat16):
        image_loss = local_image_loss(regions, attended, weights, grid=GRID)
        report_loss = local_report_loss(
            sentences.bfloat16(), seen.bfloat16(), mask, sentence_weights.bfloat16()
        )
    torch.testing.assert_close(image_loss, local_image_loss(regions, attended, weights, grid=GRID))
    assert report_loss.dtype == torch.float32

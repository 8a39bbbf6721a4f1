from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from distributed_pretrain.losses.contrastive import (
    global_contrastive_loss,
    symmetric_cross_entropy,
)


def pairs(batch: int = 5, dim: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    image, report = torch.randn(2, batch, dim, generator=generator, dtype=torch.float64)
    return image.requires_grad_(), report.requires_grad_()


def gradients(loss: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, inputs)


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a @ b / (a.norm() * b.norm())).detach())


def test_the_loss_is_equations_3_to_5() -> None:
    image, report = pairs()
    tau, weight = 0.1, 0.75
    count = len(image)
    expected = 0.0
    for i in range(count):
        own = math.exp(cosine(image[i], report[i]) / tau)
        to_reports = sum(math.exp(cosine(image[i], report[j]) / tau) for j in range(count))
        to_images = sum(math.exp(cosine(report[i], image[j]) / tau) for j in range(count))
        expected -= weight * math.log(own / to_reports) / count
        expected -= (1 - weight) * math.log(own / to_images) / count
    assert global_contrastive_loss(image, report).item() == pytest.approx(expected, rel=1e-10)


def test_identical_vectors_give_the_logarithm_of_the_batch() -> None:
    ones = torch.ones(8, 4, dtype=torch.float64)
    assert global_contrastive_loss(ones, ones).item() == pytest.approx(math.log(8), rel=1e-10)


def test_orthogonal_pairs_approach_zero_as_the_temperature_falls() -> None:
    eye = torch.eye(6, dtype=torch.float64)
    assert global_contrastive_loss(eye, eye, temperature=0.01).item() == pytest.approx(0, abs=1e-10)


def test_one_pair_has_no_loss() -> None:
    image, report = pairs(batch=1)
    assert global_contrastive_loss(image, report).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("padding", [0.0, math.nan, math.inf])
@pytest.mark.parametrize("chunk_size", [None, 2])
def test_masked_samples_change_neither_loss_nor_gradient(
    padding: float, chunk_size: int | None
) -> None:
    image, report = pairs()
    temperature = torch.tensor([0.2], dtype=torch.float64, requires_grad=True)
    loss = global_contrastive_loss(image, report, temperature=temperature)
    expected = gradients(loss, image, report, temperature)

    filler = torch.full((2, 7), padding, dtype=torch.float64)
    padded = [
        torch.cat([filler[:1], each.detach(), filler[1:]]).requires_grad_()
        for each in (image, report)
    ]
    mask = torch.tensor([False, True, True, True, True, True, False])
    masked = global_contrastive_loss(
        *padded, temperature=temperature, sample_mask=mask, chunk_size=chunk_size
    )
    image_grad, report_grad, temperature_grad = gradients(masked, *padded, temperature)

    torch.testing.assert_close(masked, loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(image_grad[mask], expected[0], rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(report_grad[mask], expected[1], rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(temperature_grad, expected[2], rtol=1e-10, atol=0)
    assert not image_grad[~mask].any()
    assert not report_grad[~mask].any()


def test_a_batch_of_padding_has_no_loss_and_no_gradient() -> None:
    image, report = pairs()
    nobody = torch.zeros(5, dtype=torch.bool)
    loss = global_contrastive_loss(image, report, sample_mask=nobody)
    assert loss.item() == 0
    assert not any(each.any() for each in gradients(loss, image, report))


@pytest.mark.parametrize("chunk_size", [1, 2, 5, 100])
def test_chunks_change_neither_loss_nor_gradient(chunk_size: int) -> None:
    image, report = pairs()
    temperature = torch.tensor([0.2], dtype=torch.float64, requires_grad=True)
    whole = global_contrastive_loss(image, report, temperature=temperature)
    chunked = global_contrastive_loss(image, report, temperature=temperature, chunk_size=chunk_size)
    torch.testing.assert_close(chunked, whole, rtol=1e-12, atol=0)
    for ours, expected in zip(
        gradients(chunked, image, report, temperature),
        gradients(whole, image, report, temperature),
        strict=True,
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-14)


def test_chunks_keep_no_block_of_batch_by_batch_for_backward() -> None:
    batch, dim, chunk_size = 64, 4, 8
    image, report = pairs(batch, dim)
    sizes: list[int] = []

    def record(saved: Tensor) -> Tensor:
        sizes.append(saved.numel())
        return saved

    def restore(saved: Any) -> Any:
        return saved

    with torch.autograd.graph.saved_tensors_hooks(record, restore):
        global_contrastive_loss(image, report, chunk_size=chunk_size)
    assert max(sizes) <= batch * dim
    sizes.clear()
    with torch.autograd.graph.saved_tensors_hooks(record, restore):
        global_contrastive_loss(image, report)
    assert max(sizes) >= batch * batch


def test_autocast_does_not_lower_the_precision() -> None:
    image, report = (each.detach().float() for each in pairs())
    with torch.autocast("cpu", torch.bfloat16):
        lowered = global_contrastive_loss(image, report, chunk_size=2)
    assert lowered.dtype == torch.float32
    torch.testing.assert_close(lowered, global_contrastive_loss(image, report))


def test_bfloat16_inputs_give_a_float32_loss() -> None:
    image, report = (each.detach().bfloat16() for each in pairs())
    assert global_contrastive_loss(image, report).dtype == torch.float32


def test_symmetric_cross_entropy_is_the_row_plus_the_column_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(5)
    similarity = torch.rand(6, 6, generator=generator, dtype=torch.float64)
    logits, target = similarity / 0.1, torch.arange(6)
    cross_entropy = torch.nn.functional.cross_entropy
    expected = cross_entropy(logits, target) + cross_entropy(logits.T, target)
    torch.testing.assert_close(symmetric_cross_entropy(similarity, temperature=0.1), expected)


def test_symmetric_cross_entropy_leaves_masked_samples_out() -> None:
    generator = torch.Generator().manual_seed(5)
    similarity = torch.rand(4, 4, generator=generator, dtype=torch.float64)
    mask = torch.tensor([True, False, True, True])
    expected = symmetric_cross_entropy(similarity[mask][:, mask], temperature=0.1)
    padded = similarity.clone()
    padded[1], padded[:, 1] = math.nan, math.nan
    padded.requires_grad_()
    loss = symmetric_cross_entropy(padded, temperature=0.1, sample_mask=mask)
    torch.testing.assert_close(loss, expected)
    (gradient,) = gradients(loss, padded)
    assert gradient.isfinite().all()
    assert not gradient[1].any()

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distributed_pretrain.losses.blockwise import log_normalisers, row_log_normalisers
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


def whole_matrix_loss(image: Tensor, report: Tensor, temperature: Tensor, weight: float) -> Tensor:
    """Eqs 3-5 with the matrix of all logits, differentiated automatically."""
    logits = F.normalize(image, dim=1) @ F.normalize(report, dim=1).T / temperature
    labels = torch.arange(len(image))
    to_reports, to_images = F.cross_entropy(logits, labels), F.cross_entropy(logits.T, labels)
    return weight * to_reports + (1 - weight) * to_images


@pytest.mark.parametrize("chunk_size", [None, 1, 7, 20, 50, 64])
@pytest.mark.parametrize("tau", [1.0, 0.1, 0.005])
def test_loss_and_gradients_are_those_of_automatic_differentiation(
    chunk_size: int | None, tau: float
) -> None:
    image, report = pairs(batch=50, dim=6)
    temperature = torch.tensor([tau], dtype=torch.float64, requires_grad=True)
    inputs = (image, report, temperature)
    expected = whole_matrix_loss(*inputs, weight=0.6)
    loss = global_contrastive_loss(
        image,
        report,
        temperature=temperature,
        image_to_report_weight=0.6,
        chunk_size=chunk_size,
    )
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for ours, theirs in zip(gradients(loss, *inputs), gradients(expected, *inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12 * theirs.abs().max().item())


def test_float32_keeps_its_digits_where_exponentials_overflow() -> None:
    # Logits of ±1,000, whose exponentials overflow and vanish in float32.
    image, report = (each.detach().float().requires_grad_() for each in pairs(batch=33))
    exact = [each.detach().double().requires_grad_() for each in (image, report)]
    tau = torch.tensor([0.001])
    expected = whole_matrix_loss(exact[0], exact[1], tau.double(), weight=0.75)
    expected_gradients = gradients(expected, *exact)
    for chunk_size in (None, 4):
        loss = global_contrastive_loss(image, report, temperature=tau, chunk_size=chunk_size)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        for ours, theirs in zip(gradients(loss, image, report), expected_gradients, strict=True):
            assert (ours.double() - theirs).norm() < 1e-3 * theirs.norm()


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


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_a_batch_of_padding_has_no_loss_and_no_gradient(chunk_size: int | None) -> None:
    image, report = pairs()
    nobody = torch.zeros(5, dtype=torch.bool)
    loss = global_contrastive_loss(image, report, sample_mask=nobody, chunk_size=chunk_size)
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


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("masked", [False, True])
def test_normalisers_pass_the_gradient_check(chunk_size: int | None, masked: bool) -> None:
    rows, _ = pairs(batch=5, dim=3)
    columns, _ = pairs(batch=7, dim=3)
    row_mask = torch.tensor([True, False, True, True, False]) if masked else None
    column_mask = torch.tensor([False, True, True, True, False, True, True]) if masked else None

    def both(rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        of_rows, of_columns = log_normalisers(
            rows, columns, row_mask=row_mask, column_mask=column_mask, chunk_size=chunk_size
        )
        return of_rows[row_mask if masked else ...], of_columns[column_mask if masked else ...]

    def rows_alone(rows: Tensor, columns: Tensor) -> Tensor:
        return row_log_normalisers(rows, columns, column_mask=column_mask, chunk_size=chunk_size)

    assert torch.autograd.gradcheck(both, (rows, columns))
    assert torch.autograd.gradcheck(rows_alone, (rows, columns))


def test_normalisers_of_rows_alone_are_those_of_both_directions() -> None:
    rows, _ = pairs(batch=5, dim=3)
    columns, _ = pairs(batch=7, dim=3)
    mask = torch.tensor([False, True, True, True, False, True, True])
    expected, _ = log_normalisers(rows, columns, column_mask=mask)
    alone = row_log_normalisers(rows, columns, column_mask=mask, chunk_size=3)
    torch.testing.assert_close(alone, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(expected, (rows @ columns[mask].T).logsumexp(dim=1))


def test_the_loss_can_be_differentiated_again_by_the_same_graph() -> None:
    image, report = pairs(batch=6)
    loss = global_contrastive_loss(image, report)
    (first,) = torch.autograd.grad(loss, image, retain_graph=True)
    (second,) = torch.autograd.grad(loss, image)
    assert torch.equal(first, second)


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

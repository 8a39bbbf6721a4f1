"""Figures of the authors' LIMITR and GLoRIA on random inputs (float32, dropout off)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from distributed_pretrain.alignment.gloria import gloria_similarity
from distributed_pretrain.alignment.limitr import LimitrSimilarity
from distributed_pretrain.losses.contrastive import (
    global_contrastive_loss,
    symmetric_cross_entropy,
)

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(Path(__file__).with_name("limitr_gloria_losses.npz")) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


@pytest.fixture(scope="module")
def similarity(golden: dict[str, Tensor]) -> LimitrSimilarity:
    module = LimitrSimilarity(golden["regions"].shape[-1], "authors").eval()
    prefix = "weight."
    state = {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}
    module.load_state_dict(state)
    return module


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_limitr_s_external_loss_and_gradient_equal_the_authors(
    golden: dict[str, Tensor], similarity: LimitrSimilarity
) -> None:
    regions = golden["regions"].clone().requires_grad_()
    report_side, image_side = (
        symmetric_cross_entropy(side, temperature=0.1)
        for side in similarity(regions, golden["words"], golden["word_mask"])
    )
    external = (report_side + image_side) / 2
    external.backward()
    assert regions.grad is not None
    assert external.item() == pytest.approx(golden["external"].item(), rel=TOLERANCE)
    assert relative_error(regions.grad, golden["grad_regions"]) < TOLERANCE


def test_limitr_s_global_loss_equals_the_authors(golden: dict[str, Tensor]) -> None:
    # Half of either direction each, where the authors sum the two.
    ours = 2 * global_contrastive_loss(
        golden["global_image"], golden["global_report"], image_to_report_weight=0.5
    )
    assert ours.item() == pytest.approx(golden["global_loss"].item(), rel=TOLERANCE)


def test_limitr_s_retrieval_similarity_equals_the_authors(
    golden: dict[str, Tensor], similarity: LimitrSimilarity
) -> None:
    image, report = (F.normalize(golden[f"global_{side}"], dim=-1) for side in ("image", "report"))
    with torch.no_grad():
        sides = similarity(golden["regions"], golden["words"], golden["word_mask"])
    local = (sides[0] + sides[1]) / 2
    assert relative_error((image @ report.T + local) / 2, golden["similarity"]) < TOLERANCE


def test_gloria_s_local_loss_and_gradient_equal_the_authors(golden: dict[str, Tensor]) -> None:
    regions = golden["regions"].clone().requires_grad_()
    similarity = gloria_similarity(regions, golden["words"], golden["word_mask"])
    loss = symmetric_cross_entropy(10 * similarity, temperature=1.0)
    loss.backward()
    assert regions.grad is not None
    assert loss.item() == pytest.approx(golden["gloria_local"].item(), rel=TOLERANCE)
    assert relative_error(regions.grad, golden["gloria_grad_regions"]) < TOLERANCE

"""Figures of the authors' code on random inputs: losses, and gradients of their total."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from distributed_pretrain.losses.contrastive import global_contrastive_loss
from distributed_pretrain.losses.local import local_image_loss, local_report_loss, positiveness

TOLERANCE = 3e-5  # their positiveness matrix is float32
INPUTS = ("global_image", "regions", "regions_from_report", "sentences")


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(Path(__file__).with_name("lovt_losses.npz")) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


@pytest.fixture(scope="module")
def ours(golden: dict[str, Tensor]) -> dict[str, Tensor]:
    inputs = {name: golden[name].clone().requires_grad_() for name in INPUTS}
    rows, columns = golden["grid"].tolist()
    results = {
        "loss_global": global_contrastive_loss(inputs["global_image"], golden["global_report"]),
        "loss_local_image": local_image_loss(
            inputs["regions"],
            inputs["regions_from_report"],
            golden["region_weights"],
            grid=(rows, columns),
        ),
        "loss_local_report": local_report_loss(
            inputs["sentences"],
            golden["sentences_from_image"],
            golden["sentence_mask"],
            golden["sentence_weights"],
        ),
    }
    results["loss_total"] = results["loss_global"] + 0.75 * (
        results["loss_local_image"] + results["loss_local_report"]
    )
    results["loss_total"].backward()
    for name, value in inputs.items():
        assert value.grad is not None
        results[f"grad_{name}"] = value.grad
    return results


@pytest.mark.parametrize("name", ["global", "local_image", "local_report", "total"])
def test_losses_equal_the_authors(
    golden: dict[str, Tensor], ours: dict[str, Tensor], name: str
) -> None:
    expected = golden[f"loss_{name}"].item()
    assert ours[f"loss_{name}"].item() == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize("name", INPUTS)
def test_gradients_equal_the_authors(
    golden: dict[str, Tensor], ours: dict[str, Tensor], name: str
) -> None:
    expected = golden[f"grad_{name}"]
    error = (ours[f"grad_{name}"] - expected).norm() / expected.norm()
    assert error < TOLERANCE


def test_positiveness_equals_the_authors(golden: dict[str, Tensor]) -> None:
    rows, columns = golden["grid"].tolist()
    # Their float32 distances are not exactly 0 from a region to itself.
    torch.testing.assert_close(
        positiveness((rows, columns)), golden["positiveness"].double(), rtol=3e-4, atol=0
    )

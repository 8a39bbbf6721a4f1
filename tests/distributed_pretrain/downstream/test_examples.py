"""What is drawn of an image's detections."""

from __future__ import annotations

import pytest
import torch

from distributed_pretrain.downstream.examples import sure_boxes
from distributed_pretrain.methods.boxes import Detections


@pytest.mark.parametrize(
    ("confidence", "drawn"),
    [
        ([], []),
        ([0.9], [0.9]),
        ([0.1], []),
        ([0.9, 0.1], [0.9]),
        ([0.9, 0.5, 0.2], [0.9, 0.5, 0.2]),
    ],
)
def test_those_are_drawn_that_are_sure(confidence: list[float], drawn: list[float]) -> None:
    """One by itself too, whose mask of one element NumPy would take for a number."""
    count = len(confidence)
    corners = torch.arange(4 * count, dtype=torch.float32).view(count, 4)
    found = Detections(corners, torch.arange(count), torch.tensor(confidence))
    boxes = sure_boxes(found)
    assert boxes.confidence is not None
    assert boxes.confidence.tolist() == pytest.approx(drawn)
    assert boxes.corners.tolist() == corners[: len(drawn)].tolist()
    assert boxes.category.tolist() == list(range(len(drawn)))

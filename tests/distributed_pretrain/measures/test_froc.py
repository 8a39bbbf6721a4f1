"""Free-response ROC as the script of Object-CXR counts it."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from distributed_pretrain.measures.froc import FALSE_POSITIVES_PER_IMAGE, froc
from distributed_pretrain.methods.boxes import Detections, Truths
from tests.distributed_pretrain.measures.drawn_boxes import random_detections

FILLS: tuple[Literal["final", "last_recorded"], ...] = ("final", "last_recorded")


def looped(detections: list[Detections], truths: list[Truths], fill: str) -> float:
    """The script's loop, one detection after another."""
    every = [
        (confidence, image, box)
        for image, found in enumerate(detections)
        for confidence, box in zip(found.confidence.tolist(), found.corners.tolist(), strict=True)
    ]
    every.sort(key=lambda each: -each[0])
    boxes = [truth.corners.tolist() for truth in truths]
    total = sum(map(len, boxes))
    if not total:
        return 1.0
    seen: set[tuple[int, int]] = set()
    false_positives = 0
    recorded: list[float] = []
    for _, image, (left, top, right, bottom) in every:
        x, y = (left + right) / 2, (top + bottom) / 2
        inside = [
            (image, number)
            for number, box in enumerate(boxes[image])
            if box[0] <= x <= box[2] and box[1] <= y <= box[3]
        ]
        seen.update(inside)
        false_positives += not inside
        if false_positives / len(truths) >= FALSE_POSITIVES_PER_IMAGE[len(recorded)]:
            recorded.append(len(seen) / total)
            if len(recorded) == len(FALSE_POSITIVES_PER_IMAGE):
                break
    end = len(seen) / total
    last = recorded[-1] if recorded and fill == "last_recorded" else end
    recorded += [last] * (len(FALSE_POSITIVES_PER_IMAGE) - len(recorded))
    return sum(recorded) / len(recorded)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("seed", range(4))
def test_it_is_what_the_loop_gives(seed: int, fill: Literal["final", "last_recorded"]) -> None:
    detections, truths = random_detections(seed, images=9)
    expected = looped(detections, truths, fill)
    assert 0.1 < expected < 1
    assert froc(detections, truths, fill=fill) == pytest.approx(expected)


def test_what_was_found_after_the_last_rate_that_is_reached_counts_by_the_fill() -> None:
    detections, truths = random_detections(1, images=9)
    last, final = (froc(detections, truths, fill=fill) for fill in reversed(FILLS))
    assert final > last


BOX = torch.tensor([[10.0, 10.0, 20.0, 20.0]])
ONE = torch.tensor([0])
NONE = torch.zeros(0, dtype=torch.long)


@pytest.mark.parametrize(
    ("found", "boxes", "expected"),
    [
        (torch.zeros(0, 4), torch.zeros(0, 4), 1.0),
        (BOX, torch.zeros(0, 4), 1.0),
        (torch.zeros(0, 4), BOX, 0.0),
        (BOX, BOX, 1.0),
        # A centre on the border is inside, and finds both boxes that it lies in.
        (torch.tensor([[18.0, 14.0, 22.0, 16.0]]), torch.cat([BOX, BOX + 10]), 0.5),
        (torch.tensor([[18.0, 18.0, 22.0, 22.0]]), torch.cat([BOX, BOX + 10]), 1.0),
    ],
)
def test_the_edges_are_defined(found: torch.Tensor, boxes: torch.Tensor, expected: float) -> None:
    detections = [Detections(found, NONE.new_zeros(len(found)), torch.ones(len(found)))]
    truths = [Truths(boxes, NONE.new_zeros(len(boxes)))]
    for fill in FILLS:
        assert froc(detections, truths, fill=fill) == pytest.approx(expected)


def test_a_second_hit_of_a_box_is_neither_right_nor_wrong() -> None:
    once = [Detections(BOX, ONE, torch.tensor([0.9]))]
    twice = [Detections(torch.cat([BOX, BOX]), torch.tensor([0, 0]), torch.tensor([0.9, 0.8]))]
    truths = [Truths(BOX, ONE)]
    assert froc(once, truths, fill="final") == froc(twice, truths, fill="final") == 1.0

"""YOLOv3's targets and loss are those of a loop over boxes, scales and cells."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from distributed_pretrain.losses.anchor_boxes import (
    AnchorRules,
    AnchorTargets,
    anchor_targets,
    anchor_terms,
)

ANCHORS = torch.tensor([[[40.0, 30.0], [20.0, 50.0], [60.0, 60.0]], [[8, 8], [14, 6], [5, 20]]])
STRIDES, SIDE = (16, 8), 64
RULES = [AnchorRules(*switches) for switches in itertools.product((False, True), repeat=3)]


def boxes(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(4, 3, 2, generator=generator) * 50
    size = 3 + torch.rand(4, 3, 2, generator=generator) * 45
    present = torch.rand(4, 3, generator=generator) < 0.7
    present[1] = False
    category = torch.randint(0, 2, (4, 3), generator=generator)
    # The first image has the same box twice, of another category.
    start[0, 1], size[0, 1], present[0, :2] = start[0, 0], size[0, 0], True
    category[0, 0], category[0, 1] = 0, 1
    return torch.cat([start, start + size], dim=-1), category, present


def targets(scale: int, rules: AnchorRules) -> AnchorTargets:
    corners, category, present = boxes()
    return anchor_targets(
        corners,
        category,
        present,
        anchors=ANCHORS,
        scale=scale,
        stride=STRIDES[scale],
        cells=SIDE // STRIDES[scale],
        rules=rules,
    )


def iou(box: list[float], anchor: list[float], longer: float) -> float:
    (w, h), (a, b) = ([side + longer for side in each] for each in (box, anchor))
    both = min(w, a) * min(h, b)
    return both / (w * h + a * b - both)


def looped_targets(scale: int, rules: AnchorRules) -> tuple[dict[Any, Any], set[Any]]:
    """What is at each positive (image, anchor, row, column), and which places are negatives."""
    corners, categories, present = boxes()
    stride, cells = STRIDES[scale], SIDE // STRIDES[scale]
    positives: dict[Any, Any] = {}
    negatives = set(itertools.product(range(4), range(3), range(cells), range(cells)))
    for image, number in itertools.product(range(4), range(3)):
        if not present[image, number]:
            continue
        left, top, right, bottom = corners[image, number].tolist()
        width, height = right - left, bottom - top
        x, y = (left + right) / 2 / stride, (top + bottom) / 2 / stride
        column, row = min(int(x), cells - 1), min(int(y), cells - 1)
        per, longer = (1, 0.0) if rules.exact_iou else (stride, 1.0)
        ious = [
            iou([width / per, height / per], [a / per, b / per], longer)
            for a, b in ANCHORS[scale].tolist()
        ]
        for anchor, value in enumerate(ious):
            if value > 0.5:
                negatives.discard((image, anchor, row, column))
        best = max(range(3), key=lambda anchor: ious[anchor])
        if rules.best_scale:
            every = [
                (iou([width, height], shape, 0.0), s)
                for s in range(2)
                for shape in ANCHORS[s].tolist()
            ]
            if max(every)[1] != scale:
                continue
        a, b = ANCHORS[scale, best].tolist()
        values = (x - column, y - row, math.log(width / a), math.log(height / b))
        positives[image, best, row, column] = (values, int(categories[image, number]))
    if rules.excludes_positives:
        negatives -= positives.keys()
    return positives, negatives


@pytest.mark.parametrize("rules", RULES, ids=str)
@pytest.mark.parametrize("scale", [0, 1])
def test_targets_are_those_of_a_loop(scale: int, rules: AnchorRules) -> None:
    found, (positives, negatives) = targets(scale, rules), looped_targets(scale, rules)
    assert {tuple(each) for each in found.positive.nonzero().tolist()} == positives.keys()
    assert {tuple(each) for each in found.negative.nonzero().tolist()} == negatives
    for place, (values, category) in positives.items():
        ours = [*found.offset[place].tolist(), *found.log_size[place].tolist()]
        assert ours == pytest.approx(values, abs=1e-5)
        assert found.category[place] == category


def test_the_later_of_two_boxes_at_one_place_counts() -> None:
    found = targets(0, AnchorRules(best_scale=False))
    assert found.category[0][found.positive[0]].tolist().count(1) >= 1
    positives, _ = looped_targets(0, AnchorRules(best_scale=False))
    assert len([place for place in positives if place[0] == 0]) < int(boxes()[2][0].sum())


def looped_terms(predictions: Tensor, classes: int) -> list[dict[str, float]]:
    positives, negatives = looped_targets(1, AnchorRules())
    batch, _, rows, columns = predictions.shape
    values = predictions.view(batch, 3, 5 + classes, rows, columns)
    places = 3 * rows * columns

    def entropy(logit: float, target: float) -> float:
        p = 1 / (1 + math.exp(-logit))
        return -target * math.log(p) - (1 - target) * math.log(1 - p)

    found = []
    for image in range(batch):
        sums = {"position": 0.0, "size": 0.0, "object": 0.0, "background": 0.0, "category": 0.0}
        for (of_image, anchor, row, column), ((x, y, w, h), category) in positives.items():
            if of_image != image:
                continue
            numbers = values[image, anchor, :, row, column].tolist()
            sums["position"] += entropy(numbers[0], x) + entropy(numbers[1], y)
            sums["size"] += (numbers[2] - w) ** 2 + (numbers[3] - h) ** 2
            sums["object"] += entropy(numbers[4], 1)
            sums["category"] += sum(
                entropy(numbers[5 + each], float(each == category)) for each in range(classes)
            )
        for of_image, anchor, row, column in negatives:
            if of_image == image:
                sums["background"] += entropy(float(values[image, anchor, 4, row, column]), 0)
        if classes == 1:
            del sums["category"]
        found.append({name: value / places for name, value in sums.items()})
    return found


@pytest.mark.parametrize("classes", [1, 2])
def test_the_terms_are_those_of_a_loop(classes: int) -> None:
    cells = SIDE // STRIDES[1]
    generator = torch.Generator().manual_seed(3)
    predictions = torch.randn(4, 3 * (5 + classes), cells, cells, generator=generator).double()
    found = anchor_terms(predictions, targets(1, AnchorRules()))
    for image, expected in enumerate(looped_terms(predictions, classes)):
        assert {name: float(each[image]) for name, each in found.items()} == pytest.approx(expected)


def test_an_image_without_boxes_is_all_background() -> None:
    predictions = torch.zeros(4, 18, 8, 8)
    found = anchor_terms(predictions, targets(1, AnchorRules()))
    assert found["background"][1].item() == pytest.approx(math.log(2))
    assert all(found[name][1] == 0 for name in ("position", "size", "object"))


def test_it_is_in_float32_and_sure_mistakes_still_teach() -> None:
    predictions = torch.full((4, 18, 8, 8), -200.0, dtype=torch.bfloat16, requires_grad=True)
    found = anchor_terms(predictions, targets(1, AnchorRules()))
    assert all(each.dtype == torch.float32 for each in found.values())
    found["object"].sum().backward()
    assert predictions.grad is not None
    assert predictions.grad.abs().max() > 0

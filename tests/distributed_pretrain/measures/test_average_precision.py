"""Average precision is what a slow loop of each rule gives, and what pycocotools gives."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import torch

from distributed_pretrain.measures.average_precision import (
    AUTHORS,
    COCO,
    IOU_THRESHOLDS,
    RECALLS,
    MatchRules,
    average_precisions,
)
from distributed_pretrain.methods.boxes import Detections, Truths
from tests.distributed_pretrain.measures.drawn_boxes import random_detections

# Of pycocotools 2.0.11 on `random_detections(seed)`: its mean over thresholds and classes.
BY_PYCOCOTOOLS = {0: 0.0746359216778661, 1: 0.1823470678001063, 2: 0.11784262149646138}


def overlap(a: list[float], b: list[float], plus: float) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0]) + plus
    height = min(a[3], b[3]) - max(a[1], b[1]) + plus
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(c[2] - c[0] + plus) * (c[3] - c[1] + plus) for c in (a, b)]
    return width * height / (sum(areas) - width * height)


def looped(
    detections: list[Detections],
    truths: list[Truths],
    category: int,
    threshold: float,
    *,
    authors: bool,
) -> float:
    """As the authors tell it: each looks at its image's boxes, that of the most overlap first."""
    every = []
    for image, found in enumerate(detections):
        own = [
            (confidence, image, box)
            for confidence, box, its in zip(
                found.confidence.tolist(),
                found.corners.tolist(),
                found.category.tolist(),
                strict=True,
            )
            if its == category
        ]
        own.sort(key=lambda each: -each[0])
        every += own if authors else own[:100]
    every.sort(key=lambda each: -each[0])
    boxes = [truth.corners[truth.category == category].tolist() for truth in truths]
    taken = [[False] * len(of_image) for of_image in boxes]
    hits: list[bool] = []
    for _, image, box in every:
        overlaps = [overlap(box, other, 1.0 if authors else 0.0) for other in boxes[image]]
        for number in sorted(range(len(overlaps)), key=lambda n: -overlaps[n]):
            reached = overlaps[number] > threshold
            if not authors:
                reached |= overlaps[number] == threshold
            if reached and not taken[image][number]:
                taken[image][number] = True
                hits.append(True)
                break
        else:
            hits.append(False)
    total = sum(map(len, boxes))
    points = [(sum(hits[: n + 1]) / total, sum(hits[: n + 1]) / (n + 1)) for n in range(len(hits))]
    return sum(
        max((precision for recall, precision in points if recall >= wanted), default=0.0)
        for wanted in RECALLS.tolist()
    ) / len(RECALLS)


@pytest.mark.parametrize("rules", [AUTHORS, COCO], ids=["authors", "coco"])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_the_loop_gives(seed: int, rules: MatchRules) -> None:
    detections, truths = random_detections(seed)
    found = average_precisions(detections, truths, classes=2, rules=rules)
    expected = [
        [looped(detections, truths, c, t, authors=rules is AUTHORS) for c in range(2)]
        for t in IOU_THRESHOLDS
    ]
    assert 0.05 < np.mean(expected) < 0.95
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_authors_rules_differ_from_cocos() -> None:
    """One more pixel makes small boxes overlap; a hundred detections an image are enough."""
    truth = [Truths(torch.tensor([[10.0, 10.0, 14.0, 14.0]]), torch.tensor([0]))]
    near = Detections(torch.tensor([[12.0, 10.0, 16.0, 14.0]]), torch.tensor([0]), torch.ones(1))
    ours = [
        average_precisions([near], truth, classes=1, rules=each, thresholds=[0.4])[0, 0]
        for each in (AUTHORS, COCO)
    ]
    assert ours == pytest.approx([1.0, 0.0])
    # Exactly half of it: reached for COCO alone, where no pixel is added either.
    exact = MatchRules(plus_one_px=False, strict=True, most_detections=None)
    half = Detections(torch.tensor([[10.0, 10.0, 14.0, 12.0]]), torch.tensor([0]), torch.ones(1))
    ours = [
        average_precisions([half], truth, classes=1, rules=each, thresholds=[0.5])[0, 0]
        for each in (exact, COCO)
    ]
    assert ours == pytest.approx([0.0, 1.0])
    many = Detections(
        torch.cat([torch.zeros(100, 4), truth[0].corners]),
        torch.zeros(101, dtype=torch.long),
        torch.linspace(1, 0.1, 101),
    )
    ours = [
        average_precisions([many], truth, classes=1, rules=each, thresholds=[0.5])[0, 0]
        for each in (AUTHORS, COCO)
    ]
    assert ours == pytest.approx([1 / 101, 0.0])


NO_BOX = Truths(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
NOTHING = Detections(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0))
BOX = Truths(torch.tensor([[1.0, 1.0, 9.0, 9.0]]), torch.tensor([0]))
FOUND = Detections(BOX.corners, BOX.category, torch.tensor([0.9]))


@pytest.mark.parametrize(
    ("detections", "truths", "expected"),
    [
        ([NOTHING], [NO_BOX], np.nan),
        ([FOUND], [NO_BOX], np.nan),
        ([NOTHING], [BOX], 0.0),
        ([FOUND], [BOX], 1.0),
        # A false alarm on an image without boxes, of the same confidence, comes first.
        ([FOUND, FOUND], [NO_BOX, BOX], 0.5),
        ([FOUND, NOTHING], [BOX, NO_BOX], 1.0),
        ([FOUND, NOTHING], [BOX, BOX], 51 / 101),
    ],
)
def test_the_edges_are_defined(
    detections: list[Detections], truths: list[Truths], expected: float
) -> None:
    for rules in (AUTHORS, COCO):
        found = average_precisions(detections, truths, classes=1, rules=rules)
        assert found == pytest.approx(np.full_like(found, expected), nan_ok=True)


@pytest.mark.parametrize("seed", range(3))
def test_cocos_is_what_pycocotools_gives(seed: int) -> None:
    detections, truths = random_detections(seed)
    found = average_precisions(detections, truths, classes=2, rules=COCO).mean()
    assert found == pytest.approx(BY_PYCOCOTOOLS[seed], abs=1e-9)
    with contextlib.suppress(ImportError):
        assert found == pytest.approx(by_pycocotools(detections, truths), abs=1e-9)


def by_pycocotools(detections: list[Detections], truths: list[Truths]) -> float:
    from pycocotools.coco import COCO as Dataset  # noqa: N811
    from pycocotools.cocoeval import COCOeval

    def rows(of: list[Any]) -> list[dict[str, Any]]:
        return [
            {
                "id": image * 1000 + number + 1,
                "image_id": image,
                "category_id": int(each.category[number]),
                "bbox": [x, y, right - x, bottom - y],
                "area": (right - x) * (bottom - y),
                "iscrowd": 0,
                **(
                    {"score": float(each.confidence[number])} if hasattr(each, "confidence") else {}
                ),
            }
            for image, each in enumerate(of)
            for number, (x, y, right, bottom) in enumerate(each.corners.double().tolist())
        ]

    with contextlib.redirect_stdout(io.StringIO()):
        dataset = Dataset()
        dataset.dataset = {
            "images": [{"id": image} for image in range(len(truths))],
            "categories": [{"id": 0}, {"id": 1}],
            "annotations": rows(truths),
        }
        dataset.createIndex()
        judge = COCOeval(dataset, dataset.loadRes(rows(detections)), "bbox")
        judge.params.iouThrs = np.array(IOU_THRESHOLDS)
        judge.evaluate()
        judge.accumulate()
    precisions = judge.eval["precision"][:, :, :, 0, -1]
    return float(precisions.mean())

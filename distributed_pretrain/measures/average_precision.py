"""Average precision of detected boxes, by the rules of LoVT's authors or of COCO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import box_iou

from distributed_pretrain.methods.boxes import Detections, Truths

RECALLS = np.linspace(0, 1, 101)
# LoVT's: 0.40 to 0.75 by 0.05.
IOU_THRESHOLDS = tuple(round(0.40 + 0.05 * step, 2) for step in range(8))


@dataclass(frozen=True)
class MatchRules:
    """When a detection has found a box.

    `plus_one_px` takes the lower right corner for a pixel that is inside (IoU of whole pixels:
    widths and heights are one longer). `strict`: the IoU must be above the threshold, not equal.
    `most_detections` are those of an image and class that count, by confidence.
    """

    plus_one_px: bool
    strict: bool
    most_detections: int | None


# The authors' calculator (bes-dev/mean_average_precision); pycocotools.
AUTHORS = MatchRules(plus_one_px=True, strict=True, most_detections=None)
COCO = MatchRules(plus_one_px=False, strict=False, most_detections=100)


def average_precisions(
    detections: Sequence[Detections],
    truths: Sequence[Truths],
    *,
    classes: int,
    rules: MatchRules,
    thresholds: Sequence[float] = IOU_THRESHOLDS,
) -> NDArray[np.float64]:
    """(thresholds, classes) average precisions over images; NaN for a class without a box.

    AP = mean over recalls r of 0, 0.01 ... 1 of the highest precision at a recall of r or more.
    Detections of a class, by falling confidence over all images (equal ones in the order they come
    in), each take the free box of their image with the highest IoU, if that is enough: a true
    positive; every other is a false positive, also on images without boxes. Images without
    detections count by their boxes, which nobody found.
    """
    found = np.full((len(thresholds), classes), np.nan)
    for category in range(classes):
        boxes = sum(int((truth.category == category).sum()) for truth in truths)
        if boxes:
            hits = _hits(detections, truths, category, rules, np.asarray(thresholds))
            for row, hit in enumerate(hits):
                found[row, category] = _area(hit, boxes)
    return found


def _hits(
    detections: Sequence[Detections],
    truths: Sequence[Truths],
    category: int,
    rules: MatchRules,
    thresholds: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """(thresholds, detections) whether each of a class, by falling confidence, found a box."""
    confidences, hits = [], []
    for detected, truth in zip(detections, truths, strict=True):
        of_class = detected.of(category).by_confidence(most=rules.most_detections)
        overlaps = _overlaps(of_class.corners, truth.of(category).corners, rules)
        confidences.append(of_class.confidence.double().numpy())
        hits.append(_matched(overlaps, thresholds, strict=rules.strict))
    order = np.argsort(-np.concatenate(confidences), kind="stable")
    return np.concatenate(hits, axis=1)[:, order]


def _overlaps(detected: Tensor, boxes: Tensor, rules: MatchRules) -> NDArray[np.float64]:
    longer = torch.tensor([0.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    ends = longer if rules.plus_one_px else torch.zeros_like(longer)
    overlaps: NDArray[np.float64] = box_iou(detected.double() + ends, boxes.double() + ends).numpy()
    return overlaps


def _matched(
    overlaps: NDArray[np.float64], thresholds: NDArray[np.float64], *, strict: bool
) -> NDArray[np.bool_]:
    """(thresholds, detections) of one image, whose detections come by falling confidence."""
    count, boxes = overlaps.shape
    hits = np.zeros((len(thresholds), count), dtype=np.bool_)
    if not boxes:
        return hits
    free = np.ones((len(thresholds), boxes), dtype=np.bool_)
    rows = np.arange(len(thresholds))
    for number, overlap in enumerate(overlaps):
        reached = overlap > thresholds[:, None] if strict else overlap >= thresholds[:, None]
        candidates = np.where(free & reached, overlap, -1.0)
        best = candidates.argmax(axis=1)
        hits[:, number] = candidates[rows, best] >= 0
        free[rows, best] &= ~hits[:, number]
    return hits


def _area(hits: NDArray[np.bool_], boxes: int) -> float:
    if not len(hits):
        return 0.0
    found = hits.cumsum()
    recalls, precisions = found / boxes, found / np.arange(1, len(hits) + 1)
    highest = np.maximum.accumulate(precisions[::-1])[::-1]
    first = np.searchsorted(recalls, RECALLS, side="left")
    return float(np.append(highest, 0.0)[first].mean())

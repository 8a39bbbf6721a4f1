"""Free-response ROC: how many boxes are found at so many false positives an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from distributed_pretrain.methods.boxes import Detections, Truths

FALSE_POSITIVES_PER_IMAGE = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def froc(
    detections: Sequence[Detections],
    truths: Sequence[Truths],
    *,
    fill: Literal["final", "last_recorded"],
    rates: Sequence[float] = FALSE_POSITIVES_PER_IMAGE,
) -> float:
    """The mean sensitivity at `rates` of false positives an image, as Object-CXR's script has it.

    Detections of the whole set come by falling confidence. One whose centre lies in a box, borders
    included, finds every box that it lies in, and counts for nothing if they are found already; one
    outside of all is a false positive. Where false positives per image reach the next rate, the
    share of boxes found by then is recorded, at most one rate a detection. Rates that are never
    reached get the share that was found in the end (`final`), or the last one that was recorded
    (`last_recorded`, the script; if there is none, the share in the end). 1 without any box.
    """
    boxes = sum(len(truth.category) for truth in truths)
    if not boxes:
        return 1.0
    inside = [_inside(detected, truth) for detected, truth in zip(detections, truths, strict=True)]
    images = np.repeat(np.arange(len(truths)), [len(each) for each in inside])
    numbers = np.concatenate([np.arange(len(each)) for each in inside])
    confidences = np.concatenate([each.confidence.double().numpy() for each in detections])
    found = [np.zeros(len(truth.category), dtype=np.bool_) for truth in truths]
    hits = wrong = 0
    recorded: list[float] = []
    for at in np.argsort(-confidences, kind="stable"):
        image, row = images[at], inside[images[at]][numbers[at]]
        hits += int((row & ~found[image]).sum())
        found[image] |= row
        wrong += not row.any()
        if wrong / len(truths) >= rates[len(recorded)]:
            recorded.append(hits / boxes)
            if len(recorded) == len(rates):
                break
    last = recorded[-1] if recorded and fill == "last_recorded" else hits / boxes
    return float(np.mean(recorded + [last] * (len(rates) - len(recorded))))


def _inside(detected: Detections, truth: Truths) -> np.ndarray:
    """(detections, boxes) whether the detection's centre lies in the box."""
    corners, boxes = detected.corners.double().numpy(), truth.corners.double().numpy()
    centres = (corners[:, None, :2] + corners[:, None, 2:]) / 2
    inside: np.ndarray = ((centres >= boxes[:, :2]) & (centres <= boxes[:, 2:])).all(axis=2)
    return inside

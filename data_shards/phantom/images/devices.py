"""Lines and hardware: distractors that a report names and no label asks for."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Literal

import numpy as np

from data_shards.phantom.images.anatomy import OUTWARD, Chest, Lung
from data_shards.phantom.images.projection import Ellipsoid, ellipsoid, rod

Device = Literal[
    "pacemaker", "sternal wires", "endotracheal tube", "right central line", "left central line"
]


def device_solids(chest: Chest, devices: Iterable[Device]) -> tuple[Ellipsoid, ...]:
    """The metal of all devices, placed in a patient's chest."""
    return tuple(solid for device in devices for solid in _solids_of(chest, device))


def side_marker() -> tuple[Ellipsoid, ...]:
    """The lead letter L beside the patient's left shoulder, as laid on the detector."""
    top, foot = np.array([13.6, -15.4, 12.0]), np.array([13.6, -13.2, 12.0])
    return (rod(top, foot, 0.28), rod(foot, foot + np.array([1.3, 0.0, 0.0]), 0.28))


def _solids_of(chest: Chest, device: Device) -> tuple[Ellipsoid, ...]:
    depth = chest.anatomy.half_depth
    if device == "pacemaker":
        box = ellipsoid((9.2, -8.6, depth), (2.3, 1.9, 0.35), tilt_degrees=20)
        apex = chest.heart.center + np.array([0.5 * chest.heart.semi_axes[0], 2.4, 0.8])
        lead = [(7.8, -9.6, 0.9 * depth), (3.2, -9.8, 2), (-1.6, -6, 1), (-2.4, 1, 1), apex]
        return (box, *_wire(lead, radius_cm=0.12))
    if device == "sternal wires":
        front = 0.96 * depth
        return tuple(
            rod(np.array([-0.7, height, front]), np.array([0.7, height + 0.25, front]), 0.13)
            for height in (-7.5, -4.5, -1.5, 1.5)
        )
    if device == "endotracheal tube":
        return _wire([(-0.2, -19.0, -1.6), (-0.2, -12.0, -1.6), (-0.2, -6.2, -1.6)], radius_cm=0.12)
    lung: Lung = "right" if device == "right central line" else "left"
    out = OUTWARD[lung]
    neck, vein = (out * 4.6, -16.5, 1.5), (out * 3.2, -10.5, 1.5)
    # Both end in the superior vena cava, right of the midline.
    return _wire([neck, vein, (-1.4, -7.0, 1.5), (-2.0, -1.5, 1.2)], radius_cm=0.11)


def _wire(points: list[tuple[float, float, float]], *, radius_cm: float) -> tuple[Ellipsoid, ...]:
    """Needles along a broken line, overlapping so that no gap shows at their thin ends."""
    path = [np.asarray(point, np.float64) for point in points]
    needles: list[Ellipsoid] = []
    for start, end in pairwise(path):
        reach = 0.12 * (end - start)
        needles.append(rod(start - reach, end + reach, radius_cm))
    return tuple(needles)

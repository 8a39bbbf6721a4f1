"""Diseases of the phantom: what they are called, where they may lie, and their solids."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np
from numpy.random import Generator

from data_shards.phantom.images.anatomy import LUNGS, OUTWARD, Anatomy, Chest, Lung, LungVolume
from data_shards.phantom.images.projection import Ellipsoid, Vector, ellipsoid

# MS-CXR's eight categories and the nodules and masks of CheXpert.
Category = Literal[
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Lung Lesion",
    "Lung Opacity",
    "Pleural Effusion",
    "Pneumonia",
    "Pneumothorax",
]

Side = Literal["right", "left", "bilateral"]
Zone = Literal["upper", "mid", "lower"]
ZONES: tuple[Zone, ...] = ("upper", "mid", "lower")
Grade = Literal[1, 2, 3]
GRADES: tuple[Grade, ...] = (1, 2, 3)
Slot = tuple[Lung, Zone]
# Solid tissue in aerated lung, and what it adds to the lung's attenuation, in 1/cm.
Deposit = tuple[Ellipsoid, float]

# Attenuation in 1/cm at about 70 keV (in the lung: of the aerated tissue).
SOFT_TISSUE = 0.18
AERATED_LUNG = 0.05

# Diseases that replace lung tissue in one zone of one lung.
FOCAL: frozenset[Category] = frozenset(
    {"Atelectasis", "Consolidation", "Lung Lesion", "Lung Opacity", "Pneumonia"}
)

_FREQUENCY: dict[Category, float] = {
    "Pleural Effusion": 0.21,
    "Cardiomegaly": 0.16,
    "Pneumothorax": 0.12,
    "Consolidation": 0.11,
    "Lung Opacity": 0.09,
    "Lung Lesion": 0.10,
    "Atelectasis": 0.08,
    "Pneumonia": 0.07,
    "Edema": 0.06,
}
_RADIUS_CM: dict[Category, tuple[float, float, float]] = {
    "Consolidation": (2.5, 3.4, 4.4),
    "Pneumonia": (2.6, 3.5, 4.5),
    "Lung Opacity": (2.5, 3.4, 4.4),
    "Atelectasis": (3.0, 4.0, 5.0),
    "Edema": (4.6, 5.4, 6.2),
}
_LESION_DIAMETER_CM = ((1.6, 2.2), (2.4, 3.0), (3.4, 5.0))


@dataclass(frozen=True)
class Finding:
    """One disease at one visit.

    `grade` 1 to 3 is small, moderate, large (or mild, moderate, severe); `zone` is None where
    the disease has no zone of its own; `diameter_cm` is set for lung lesions only. `shape_seed`
    stays with the disease over visits, so that it changes size and not its looks.
    """

    category: Category
    side: Side | None
    zone: Zone | None
    grade: Grade
    shape_seed: int
    diameter_cm: float | None = None

    @property
    def lungs(self) -> tuple[Lung, ...]:
        """The lungs it lies in; empty for the heart."""
        if self.side is None:
            return ()
        return LUNGS if self.side == "bilateral" else (self.side,)


def slots_of(finding: Finding) -> frozenset[Slot]:
    """The zones a disease fills, where no other disease is drawn, so that each stays visible."""
    zones: tuple[Zone, ...] = (finding.zone,) if finding.zone else ()
    if finding.category == "Edema":
        zones = ZONES[:2]
    elif finding.category == "Pleural Effusion":
        zones = ZONES[2 if finding.grade == 1 else 1 :]
    elif finding.category == "Pneumothorax":
        zones = ZONES[: 1 if finding.grade == 1 else 2]
    return frozenset(product(finding.lungs, zones))


def draw_finding(
    rng: Generator, others: Iterable[Finding], focal_share: float | None = None
) -> Finding | None:
    """A new disease beside `others`, or None when the one drawn finds no free place."""
    others = tuple(others)
    names, frequencies = list(_FREQUENCY), np.fromiter(_FREQUENCY.values(), float)
    if focal_share is not None:
        focal = np.array([name in FOCAL for name in names])
        frequencies[focal] *= focal_share / frequencies[focal].sum()
        frequencies[~focal] *= (1 - focal_share) / frequencies[~focal].sum()
    category = names[rng.choice(len(names), p=frequencies)]
    grade = GRADES[rng.choice(3, p=(0.36, 0.36, 0.28))]
    shape_seed = int(rng.integers(2**32))
    alike = sum(other.category == category for other in others)
    if alike >= (2 if category == "Lung Lesion" else 1):
        return None
    taken = frozenset().union(*(slots_of(other) for other in others))
    places = _places(category, grade, shape_seed, rng)
    return next((each for each in places if not slots_of(each) & taken), None)


def regrade(finding: Finding, grade: Grade) -> Finding:
    """The same disease, larger or smaller."""
    diameter = _lesion_diameter(grade, finding.shape_seed) if finding.diameter_cm else None
    return replace(finding, grade=grade, diameter_cm=diameter)


def chest_with(
    anatomy: Anatomy, findings: Iterable[Finding], lung_volume: LungVolume = "normal"
) -> Chest:
    """The chest at a visit: cardiomegaly is a larger heart, not another solid."""
    ratio = anatomy.cardiothoracic_ratio
    for finding in findings:
        if finding.category == "Cardiomegaly":
            spread = np.random.default_rng(finding.shape_seed).uniform(-0.012, 0.012)
            ratio = (0.55, 0.61, 0.68)[finding.grade - 1] + spread
    return Chest(anatomy, ratio, lung_volume)


def air_above_effusion(chest: Chest, lung: Lung, finding: Finding) -> Ellipsoid:
    """What an effusion leaves to the lung: fluid fills the rest, rising in a meniscus at the wall.

    Its underside is a shallow bowl, and its flanks lie outside of the rib cage higher up.
    """
    a = chest.anatomy
    rng = np.random.default_rng([finding.shape_seed, LUNGS.index(lung)])
    dome = chest.dome_top(lung)
    rise = (0.9, 4.8, 9.6)[finding.grade - 1] + rng.uniform(-0.5, 0.7)
    bottom = dome - rise + 1.2
    tall = a.half_height + 4
    middle = (OUTWARD[lung] * 0.47 * a.half_width, bottom - tall, 0.4)
    return ellipsoid(middle, (0.72 * a.half_width, tall, 1.25 * a.half_depth))


def lung_under_pneumothorax(chest: Chest, lung: Lung, finding: Finding) -> Ellipsoid:
    """The collapsed lung: gas takes the rest, at the apex and along the side."""
    whole = chest.lobes[lung]
    rng = np.random.default_rng([finding.shape_seed, LUNGS.index(lung)])
    gap = (2.3, 3.9, 6.2)[finding.grade - 1] + rng.uniform(-0.3, 0.4)
    middle = whole.center + np.array([-OUTWARD[lung] * 0.42 * gap, 0.85 * gap, 0.0])
    # Full depth: gas in front of the lung would hide where its edge is.
    shrunk = whole.semi_axes - np.array([0.12 * gap, 0.30 * gap, 0.0])
    return Ellipsoid(middle, shrunk, whole.axes)


def deposits_of(chest: Chest, lung: Lung, finding: Finding) -> tuple[Deposit, ...]:
    """The solids of a focal disease or of edema in one lung (before the lung cuts them)."""
    rng = np.random.default_rng([finding.shape_seed, LUNGS.index(lung)])
    if finding.category == "Edema":
        return _edema(chest, lung, finding, rng)
    assert finding.category in FOCAL
    assert finding.zone is not None
    down = {"upper": 0.30, "mid": 0.58, "lower": 0.84}[finding.zone] + rng.uniform(-0.05, 0.05)
    # The lower lobes lie behind, where even a large heart leaves them room.
    forward = -0.35 if finding.zone == "lower" else 0.0
    forward += rng.uniform(-0.2, 0.2)
    middle = chest.lung_point(lung, down, rng.uniform(0.35, 0.68), forward)
    if finding.category == "Lung Lesion":
        assert finding.diameter_cm is not None
        radii = finding.diameter_cm / 2 * rng.uniform(0.95, 1.05, 3)
        # Small ones calcify.
        attenuation = (0.34, 0.25, 0.17)[finding.grade - 1]
        return ((ellipsoid(middle, radii, tilt_degrees=rng.uniform(0, 90)), attenuation),)
    extent = _RADIUS_CM[finding.category][finding.grade - 1] * rng.uniform(0.94, 1.06)
    if finding.category == "Atelectasis":
        tilt = OUTWARD[lung] * rng.uniform(-18, 28)
        return ((ellipsoid(middle, (extent, 0.42, 0.7 * extent), tilt_degrees=tilt), 0.20),)
    if finding.category == "Lung Opacity":
        hazy = extent * rng.uniform(0.85, 1.15, 3)
        return ((ellipsoid(middle, hazy, tilt_degrees=rng.uniform(0, 90)), 0.075),)
    patches, spread = (4, 0.45) if finding.category == "Consolidation" else (9, 0.72)
    return _patches(middle, extent, rng, patches=patches, spread=spread)


def _patches(
    middle: Vector, radius: float, rng: Generator, *, patches: int, spread: float
) -> tuple[Deposit, ...]:
    """Overlapping blobs: few and close together look dense, many apart look patchy."""
    share = 1.15 - spread
    offsets = rng.normal(size=(patches, 3))
    offsets *= spread * radius / np.linalg.norm(offsets, axis=1, keepdims=True)
    attenuation = 0.11 if patches <= 4 else 0.13
    return tuple(
        (
            ellipsoid(
                middle + offset * rng.uniform(0.5, 1.0),
                share * radius * rng.uniform(0.75, 1.1, 3),
                tilt_degrees=rng.uniform(0, 90),
            ),
            attenuation,
        )
        for offset in offsets
    )


def _edema(chest: Chest, lung: Lung, finding: Finding, rng: Generator) -> tuple[Deposit, ...]:
    """Haze around a hilum with denser patches in it."""
    radius = _RADIUS_CM["Edema"][finding.grade - 1]
    middle = chest.lung_point(lung, 0.56, 0.30, 0.0)
    attenuation = (0.026, 0.036, 0.046)[finding.grade - 1]
    haze = (ellipsoid(middle, (0.72 * radius, radius, radius)), attenuation)
    offsets = rng.uniform(-0.55, 0.55, (8, 3)) * np.array([0.72, 1.0, 1.0]) * radius
    patches = (
        (ellipsoid(middle + offset, rng.uniform(0.7, 1.3, 3)), 2 * attenuation)
        for offset in offsets
    )
    return (haze, *patches)


def _places(category: Category, grade: Grade, shape_seed: int, rng: Generator) -> Iterable[Finding]:
    """The places a disease may take, in random order."""
    sides: list[Side | None] = ["right", "left"]
    if category == "Cardiomegaly":
        sides = [None]
    elif category == "Edema":
        sides = ["bilateral"]
    else:
        rng.shuffle(sides)
    if category == "Pleural Effusion" and rng.random() < 0.22:
        sides.insert(0, "bilateral")
    if category not in FOCAL:
        return tuple(Finding(category, side, None, grade, shape_seed) for side in sides)
    diameter = _lesion_diameter(grade, shape_seed) if category == "Lung Lesion" else None
    places = [
        Finding(category, side, zone, grade, shape_seed, diameter)
        for side in sides
        for zone in ZONES
    ]
    return tuple(places[i] for i in rng.permutation(len(places)))


def _lesion_diameter(grade: Grade, shape_seed: int) -> float:
    low, high = _LESION_DIAMETER_CM[grade - 1]
    return round(float(np.random.default_rng(shape_seed).uniform(low, high)), 1)

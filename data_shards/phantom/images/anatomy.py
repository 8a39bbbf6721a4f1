"""A patient's chest without disease: measures drawn once a patient, and the solids they make.

Axes as in `projection`: x to the patient's left, y down, z to the front, in cm; the origin is
the middle of the chest, behind the sternum.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.random import Generator

from data_shards.phantom.images.projection import Ellipsoid, Slab, Vector, ellipsoid, rod

Sex = Literal["M", "F"]
Lung = Literal["left", "right"]
LUNGS: tuple[Lung, ...] = ("right", "left")
LungVolume = Literal["low", "normal", "high"]

# Sign of x on each side: the patient's left is the viewer's right.
OUTWARD: dict[Lung, float] = {"left": 1.0, "right": -1.0}

# Height (y) of the widest level of the rib cage.
CAVITY_MIDDLE_CM = 2.0
# How far the breath moves the diaphragm, down.
_DOME_SHIFT_CM: dict[LungVolume, float] = {"low": -3.0, "normal": 0.0, "high": 1.8}


@dataclass(frozen=True)
class Anatomy:
    """The measures of one patient, in cm where nothing else is said."""

    sex: Sex
    age: int
    half_width: float
    half_height: float
    half_depth: float
    soft_tissue: float
    heart_tilt_degrees: float
    cardiothoracic_ratio: float
    aortic_knob: float
    rib_slope_degrees: float
    dome_top: float
    raised_dome: Lung | None
    spine_bend: float
    vessel_seed: int

    @property
    def is_tortuous(self) -> bool:
        """Whether the aortic knob is large enough for a report to mention it."""
        return self.aortic_knob > 2.2


def draw_anatomy(rng: Generator) -> Anatomy:
    """A patient's measures; the heart is of normal size (ratio below 0.5)."""
    sex: Sex = "F" if rng.random() < 0.48 else "M"
    build = 0.94 if sex == "F" else 1.02
    tortuous = rng.random() < 0.2
    return Anatomy(
        sex=sex,
        age=int(rng.integers(22, 92)),
        half_width=build * rng.uniform(12.6, 14.4),
        half_height=build * rng.uniform(15.2, 17.4),
        half_depth=build * rng.uniform(8.6, 10.4),
        soft_tissue=float(np.clip(rng.gamma(5.0, 0.5), 1.0, 5.5)),
        heart_tilt_degrees=rng.uniform(22, 44),
        cardiothoracic_ratio=rng.uniform(0.40, 0.465),
        aortic_knob=rng.uniform(2.5, 3.0) if tortuous else rng.uniform(1.2, 1.7),
        rib_slope_degrees=rng.uniform(16, 27),
        dome_top=rng.uniform(6.8, 8.8),
        raised_dome=(LUNGS[rng.integers(2)] if rng.random() < 0.12 else None),
        spine_bend=rng.normal(0.0, 0.5),
        vessel_seed=int(rng.integers(2**32)),
    )


@dataclass(frozen=True, eq=False)
class Chest:
    """The solids of a patient at one visit: the measures, the heart's size and the breath taken."""

    anatomy: Anatomy
    cardiothoracic_ratio: float
    lung_volume: LungVolume

    @cached_property
    def torso(self) -> Ellipsoid:
        """The trunk with its fat and muscle, reaching beyond the image below."""
        a = self.anatomy
        wide, deep = a.half_width + 0.9 + a.soft_tissue, a.half_depth + 1.0 + 0.8 * a.soft_tissue
        return ellipsoid((0, 9, -0.3), (wide, 34, deep))

    @cached_property
    def neck(self) -> Ellipsoid:
        """The neck and the base of the skull."""
        return ellipsoid((0, -22, -1.5), (6.4, 13, 6.2))

    @cached_property
    def shoulders(self) -> tuple[Ellipsoid, ...]:
        """Muscle above and beside the lungs' apices; lifted out of a lateral view."""
        return tuple(
            ellipsoid((side * 14.5, -14.0, -1.5), (10.5, 6.0, 6.0), tilt_degrees=side * 24)
            for side in (-1.0, 1.0)
        )

    @cached_property
    def breasts(self) -> tuple[Ellipsoid, ...]:
        """Soft tissue in front of the torso; empty for men."""
        a = self.anatomy
        if a.sex == "M":
            return ()
        size = 3.8 + 0.45 * a.soft_tissue
        front = a.half_depth + 0.5 * a.soft_tissue
        return tuple(
            ellipsoid((side * 7.6, 6.5, front - 1.5), (size + 0.6, 1.15 * size, 0.8 * size))
            for side in (-1.0, 1.0)
        )

    @cached_property
    def cavity(self) -> Ellipsoid:
        """The inside of the rib cage."""
        a = self.anatomy
        return ellipsoid((0, CAVITY_MIDDLE_CM, 0), (a.half_width, a.half_height, a.half_depth))

    @cached_property
    def rib_cage(self) -> Ellipsoid:
        """The outside of the rib cage."""
        return ellipsoid((0, CAVITY_MIDDLE_CM, 0), self.cavity.semi_axes + 0.75)

    @cached_property
    def ribs(self) -> tuple[Slab, ...]:
        """The tilted slices of the rib cage's wall that are bone: high behind, low in front."""
        a = self.anatomy
        slope = np.deg2rad(a.rib_slope_degrees)
        normal = np.array([0.0, np.cos(slope), -np.sin(slope)])
        heights = CAVITY_MIDDLE_CM + a.half_height * np.linspace(-0.80, 0.86, 10)
        return tuple(Slab(np.array([0.0, height, 0.0]), normal, 0.42) for height in heights)

    @cached_property
    def lobes(self) -> dict[Lung, Ellipsoid]:
        """Each lung before the rib cage, the diaphragm and the heart cut into it."""
        a = self.anatomy
        return {
            lung: ellipsoid(
                (OUTWARD[lung] * 0.52 * a.half_width, 2.6, -0.2),
                (0.52 * a.half_width, a.half_height + 0.2, a.half_depth + 0.6),
                tilt_degrees=OUTWARD[lung] * -3.0,
            )
            for lung in LUNGS
        }

    @cached_property
    def domes(self) -> dict[Lung, Ellipsoid]:
        """The halves of the diaphragm, with what lies below them."""
        a = self.anatomy
        return {
            lung: ellipsoid(
                (OUTWARD[lung] * 0.50 * a.half_width, self.dome_top(lung) + 11.0, 0.6),
                (0.60 * a.half_width, 11.0, 0.98 * a.half_depth),
                pitch_degrees=-8,
            )
            for lung in LUNGS
        }

    def dome_top(self, lung: Lung) -> float:
        """Height (y) of the diaphragm's top; the right half stands higher."""
        raised = -3.2 if self.anatomy.raised_dome == lung else 0.0
        lower_left = 0.9 if lung == "left" else 0.0
        shift = _DOME_SHIFT_CM[self.lung_volume]
        return self.anatomy.dome_top + shift + lower_left + raised

    @cached_property
    def heart(self) -> Ellipsoid:
        """The heart; its frontal width is the cardiothoracic ratio times the rib cage's."""
        a = self.anatomy
        tilt = np.deg2rad(a.heart_tilt_degrees)
        half_width = self.cardiothoracic_ratio * a.half_width
        # The shadow of an ellipse of semi-axes l, 0.78 l, turned by the tilt, is half_width wide.
        long = half_width / float(np.hypot(np.cos(tilt), 0.78 * np.sin(tilt)))
        # It rests on the diaphragm and, when large, sinks into it more than it rises.
        rest = a.dome_top + min(_DOME_SHIFT_CM[self.lung_volume], 0.0)
        middle = (0.30 * half_width, rest + 1.2 - 0.48 * long, 0.28 * a.half_depth)
        return ellipsoid(
            middle, (long, 0.78 * long, 0.70 * long), tilt_degrees=a.heart_tilt_degrees
        )

    @cached_property
    def mediastinum(self) -> tuple[Ellipsoid, ...]:
        """Great vessels and the aortic knob."""
        knob = self.anatomy.aortic_knob
        return (
            ellipsoid((0.2, -3.0, -1.5), (2.7, 17.0, 0.62 * self.anatomy.half_depth)),
            ellipsoid((1.7, -5.6, -1.0), (1.1 + knob, 1.0 + 0.8 * knob, 3.0), tilt_degrees=-20),
        )

    @cached_property
    def hila(self) -> dict[Lung, Ellipsoid]:
        """The roots of the lungs, soft tissue within the lung's outline."""
        return {
            lung: ellipsoid(
                (OUTWARD[lung] * 3.9, self.hilum_height(lung), -1.0),
                (1.1, 2.3, 1.6),
                tilt_degrees=OUTWARD[lung] * -22,
            )
            for lung in LUNGS
        }

    def hilum_height(self, lung: Lung) -> float:
        """Height (y) of a hilum; the left one stands higher."""
        return -1.6 if lung == "left" else -0.8

    @cached_property
    def airways(self) -> tuple[Ellipsoid, ...]:
        """Trachea and main bronchi: air inside the mediastinum."""
        carina = np.array([-0.2, -4.0, -1.8])
        bronchi = [
            rod(carina, np.array([OUTWARD[lung] * 3.6, self.hilum_height(lung), -1.4]), 0.6)
            for lung in LUNGS
        ]
        return (ellipsoid((-0.2, -11.5, -1.6), (0.85, 9.0, 0.85)), *bronchi)

    @cached_property
    def spine(self) -> Ellipsoid:
        """The column of vertebrae; `drawing` notches it at the discs."""
        a = self.anatomy
        return ellipsoid((0, 4, -0.86 * a.half_depth), (1.75, 42, 1.9), tilt_degrees=a.spine_bend)

    @cached_property
    def flat_bones(self) -> tuple[Ellipsoid, ...]:
        """Sternum, clavicles and shoulder blades."""
        a = self.anatomy
        bones = [ellipsoid((0, -1.5, a.half_depth + 0.1), (1.7, 8.0, 0.6), pitch_degrees=-6)]
        for lung in LUNGS:
            out = OUTWARD[lung]
            inner = np.array([out * 1.8, -10.2, 0.5 * a.half_depth])
            bones.append(rod(inner, np.array([out * 15.5, -14.8, 0.0]), 0.75))
            scapula = (out * 15.2, -7.0, -0.8 * a.half_depth)
            bones.append(ellipsoid(scapula, (2.6, 6.5, 0.5), tilt_degrees=out * 14))
        return tuple(bones)

    @cached_property
    def stomach_bubble(self) -> Ellipsoid:
        """Air below the left half of the diaphragm."""
        rng = np.random.default_rng(self.anatomy.vessel_seed + 1)
        size = rng.uniform(1.2, 2.4)
        middle = (rng.uniform(5.5, 7.5), self.dome_top("left") + 1.2 + size, 1.0)
        return ellipsoid(middle, (1.3 * size, 0.8 * size, size))

    @cached_property
    def vessels(self) -> dict[Lung, tuple[Ellipsoid, ...]]:
        """Arteries and veins fanning out from each hilum, thinner towards the wall."""
        rng = np.random.default_rng(self.anatomy.vessel_seed)
        a = self.anatomy
        fans: dict[Lung, tuple[Ellipsoid, ...]] = {}
        for lung in LUNGS:
            root = np.array([OUTWARD[lung] * 3.9, self.hilum_height(lung), -1.0])
            fan: list[Ellipsoid] = []
            for angle in np.deg2rad(np.linspace(-78, 84, 9)) + rng.normal(0, 0.08, 9):
                length = rng.uniform(5.5, 9.0)
                ahead = np.array([OUTWARD[lung] * np.cos(angle), np.sin(angle), 0.0])
                ahead[2] = rng.uniform(-0.5, 0.5)
                middle = root + 0.5 * length * ahead
                fan.append(rod(root, middle, rng.uniform(0.38, 0.5)))
                for turn in np.array([-0.35, 0.35]) + rng.normal(0, 0.1, 2):
                    branch = np.array(
                        [OUTWARD[lung] * np.cos(angle + turn), np.sin(angle + turn), ahead[2]]
                    )
                    fan.append(rod(middle, middle + 0.5 * length * branch, rng.uniform(0.2, 0.3)))
            fans[lung] = tuple(v for v in fan if abs(v.center[2]) < 0.8 * a.half_depth)
        return fans

    def lung_point(self, lung: Lung, down: float, out: float, forward: float) -> Vector:
        """A point of the lung.

        `down` runs from 0 (apex) to 1 (top of the diaphragm), `out` from 0 (edge of heart and
        mediastinum) to 1 (rib cage), `forward` from -1 to 1 in half depths of the rib cage.
        """
        a = self.anatomy
        apex = CAVITY_MIDDLE_CM - a.half_height + 1.2
        height = apex + down * (self.dome_top(lung) - apex)
        level = np.sqrt(max(1 - ((height - CAVITY_MIDDLE_CM) / a.half_height) ** 2, 0.05))
        wall = 0.96 * a.half_width * level * np.sqrt(1 - forward**2)
        inner = max(3.2, OUTWARD[lung] * self._heart_edge(lung, height) - 0.5)
        inner = min(inner, wall - 1.0)
        x = OUTWARD[lung] * (inner + out * (wall - inner))
        return np.array([x, height, forward * a.half_depth])

    def _heart_edge(self, lung: Lung, height: float) -> float:
        """x of the heart's border at a height; 0 above the heart."""
        half_height = float(np.linalg.norm((self.heart.axes * self.heart.semi_axes)[1]))
        offset = (height - self.heart.center[1]) / half_height
        if abs(offset) >= 1:
            return 0.0
        half_width = self.cardiothoracic_ratio * self.anatomy.half_width
        edge = OUTWARD[lung] * half_width * np.sqrt(1 - offset**2)
        return float(self.heart.center[0] + edge)

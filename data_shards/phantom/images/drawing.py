"""The absorption images of a chest: line integrals of a frontal or lateral view, and masks.

    P = soft |body| - (soft - lung) |aerated lung| - soft |gas| + bones, metal and diseases

where |.| is the path in cm along each ray and aerated lung is what heart, mediastinum,
diaphragm, effusions and pneumothoraces leave of a lung.
"""

# H rows, W columns of the detector

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from data_shards.phantom.images.anatomy import LUNGS, Chest, Lung
from data_shards.phantom.images.findings import (
    AERATED_LUNG,
    SOFT_TISSUE,
    Finding,
    air_above_effusion,
    deposits_of,
    lung_under_pneumothorax,
)
from data_shards.phantom.images.projection import (
    Ellipsoid,
    Interval,
    Plane,
    Rays,
    Slab,
    crop_interval,
    ellipsoid_interval,
    intersection,
    length_outside,
    slab_interval,
    union_length,
)

Mask = Bool[ndarray, "height width"]
# Where a finding changes the line integrals of each lung it lies in; under None all of the heart's
# shadow, as radiologists box it.
Regions: TypeAlias = dict[Lung | None, Mask]

BONE = 0.24
VERTEBRA = 0.13
METAL = 2.5
PLEURA_CM = 0.12
# A disease shows where it changes the line integral by this much or more.
VISIBLE_CHANGE = 0.05

FIELD_HEIGHT_CM = 34.0
FIELD_WIDTH_CM: dict[str, float] = {"frontal": 34.0, "lateral": 29.0}
_DISC_PERIOD_CM = 2.9


@dataclass(frozen=True)
class Pose:
    """How the patient stands: turn about the vertical axis, shift on the detector, enlargement."""

    turn_degrees: float = 0.0
    right_cm: float = 0.0
    down_cm: float = 0.0
    zoom: float = 1.0


def rays_of(
    orientation: Literal["frontal", "lateral"], height_px: int, pose: Pose | None = None
) -> Rays:
    """The rays of a view: a frontal is seen facing the patient, a lateral has the front left."""
    pose = pose or Pose()
    width_px = round(FIELD_WIDTH_CM[orientation] * height_px / FIELD_HEIGHT_CM)
    pixel_cm = FIELD_HEIGHT_CM / height_px / pose.zoom
    turn = np.deg2rad(pose.turn_degrees)
    to_left = np.array([np.cos(turn), 0.0, np.sin(turn)])
    to_front = np.array([-np.sin(turn), 0.0, np.cos(turn)])
    right, beam = (to_left, to_front) if orientation == "frontal" else (-to_front, to_left)
    return Rays(
        right,
        np.array([0.0, 1.0, 0.0]),
        beam,
        _pixel_centers(width_px, pixel_cm, pose.right_cm),
        _pixel_centers(height_px, pixel_cm, pose.down_cm),
    )


def draw_absorption(
    chest: Chest, findings: Sequence[Finding], rays: Rays, metal: Iterable[Ellipsoid] = ()
) -> tuple[Plane, list[Regions]]:
    """Line integrals of a chest with its findings, and where each finding changes them."""
    is_frontal = abs(rays.beam[2]) > abs(rays.beam[0])
    body = (chest.torso, chest.neck, *chest.shoulders) if is_frontal else (chest.torso,)
    shapes = [ellipsoid_interval(solid, rays) for solid in body]
    total = np.float32(SOFT_TISSUE) * union_length(shapes)
    for breast in chest.breasts:
        _add(total, rays, breast, SOFT_TISSUE, outside=shapes[:1])
    cavity = ellipsoid_interval(chest.cavity, rays)
    heart = ellipsoid_interval(chest.heart, rays)
    vessels = [ellipsoid_interval(solid, rays) for solid in chest.mediastinum]
    _add_bones(total, chest, cavity, rays)
    for airway in (*chest.airways, chest.stomach_bubble):
        _add(total, rays, airway, -SOFT_TISSUE)
    regions: list[Regions] = [{} for _ in findings]
    for lung in LUNGS:
        dome = ellipsoid_interval(chest.domes[lung], rays)
        lobe = intersection(cavity, ellipsoid_interval(chest.lobes[lung], rays))
        for index, mask in _add_lung(
            total, chest, lung, lobe, [heart, *vessels, dome], findings, rays
        ):
            regions[index][lung] = mask
    for wire in metal:
        _add(total, rays, wire, METAL)
    for finding, masks in zip(findings, regions, strict=True):
        if finding.category == "Cardiomegaly":
            masks[None] = np.float32(SOFT_TISSUE) * heart.length() >= VISIBLE_CHANGE
    return total, regions


def _add_lung(
    total: Plane,
    chest: Chest,
    lung: Lung,
    lobe: Interval,
    solids: list[Interval],
    findings: Sequence[Finding],
    rays: Rays,
) -> Iterable[tuple[int, Mask]]:
    """Carve a lung out of `total` and put its diseases in; yields where each changes it."""
    here = [(i, finding) for i, finding in enumerate(findings) if lung in finding.lungs]
    length = length_outside(lobe, solids)
    for index, finding in here:
        if finding.category == "Pleural Effusion":
            above = intersection(
                lobe, ellipsoid_interval(air_above_effusion(chest, lung, finding), rays)
            )
            length_above = length_outside(above, solids)
            fluid = np.float32(SOFT_TISSUE - AERATED_LUNG) * (length - length_above)
            yield index, fluid >= VISIBLE_CHANGE
            lobe, length = above, length_above
    for index, finding in here:
        if finding.category == "Pneumothorax":
            shrunk = lung_under_pneumothorax(chest, lung, finding)
            collapsed = ellipsoid_interval(shrunk, rays)
            aerated = intersection(lobe, collapsed)
            length_aerated = length_outside(aerated, solids)
            gas = length - length_aerated
            total -= np.float32(SOFT_TISSUE) * gas
            yield index, np.float32(AERATED_LUNG) * gas >= VISIBLE_CHANGE
            # The visceral pleura: a thin shell, bright where rays graze it.
            shell = Ellipsoid(shrunk.center, shrunk.semi_axes + PLEURA_CM, shrunk.axes)
            pleura = intersection(lobe, ellipsoid_interval(shell, rays))
            total += np.float32(SOFT_TISSUE) * length_outside(pleura, [*solids, collapsed])
            lobe, length = aerated, length_aerated
    total -= np.float32(SOFT_TISSUE - AERATED_LUNG) * length
    for vessel in (chest.hila[lung], *chest.vessels[lung]):
        _add(total, rays, vessel, SOFT_TISSUE - AERATED_LUNG, within=lobe)
    for index, finding in here:
        if finding.category in ("Pleural Effusion", "Pneumothorax"):
            continue
        change = np.zeros_like(total)
        for solid, attenuation in deposits_of(chest, lung, finding):
            _add(change, rays, solid, attenuation, within=lobe, outside=solids)
        total += change
        yield index, change >= VISIBLE_CHANGE


def _add_bones(total: Plane, chest: Chest, cavity: Interval, rays: Rays) -> None:
    cage = ellipsoid_interval(chest.rib_cage, rays)
    # Farther in front ribs are cartilage, which hardly shows.
    middle_depth = 0.55 * chest.anatomy.half_depth - 500.0
    bony = Slab(np.array([0.0, 0.0, middle_depth]), np.array([0.0, 0.0, 1.0]), 500.0)
    for rib in chest.ribs:
        reach = chest.rib_cage.semi_axes[2] * np.tan(np.arccos(rib.normal[1])) + rib.half_thickness
        low, high = np.searchsorted(rays.rows_cm, (rib.point[1] - reach, rib.point[1] + reach))
        window = (slice(int(low), int(high)), slice(None))
        cropped = rays.crop(window)
        slice_of_rib = intersection(slab_interval(rib, cropped), slab_interval(bony, cropped))
        outer = intersection(crop_interval(cage, window), slice_of_rib).length()
        inner = intersection(crop_interval(cavity, window), slice_of_rib).length()
        total[window] += np.float32(BONE) * (outer - inner)
    # Vertebrae, less dense at the discs; the heights are the same along a horizontal ray.
    phase = np.cos(2 * np.pi * rays.rows_cm / _DISC_PERIOD_CM)
    vertebra = (VERTEBRA * (0.35 + 0.65 * np.clip(2.2 * phase + 1.3, 0, 1))).astype(np.float32)
    window = rays.window(chest.spine)
    column = ellipsoid_interval(chest.spine, rays.crop(window)).length()
    total[window] += vertebra[window[0], None] * column
    for bone in chest.flat_bones:
        _add(total, rays, bone, BONE)


def _add(
    total: Plane,
    rays: Rays,
    solid: Ellipsoid,
    attenuation: float,
    *,
    within: Interval | None = None,
    outside: Sequence[Interval] = (),
) -> None:
    """Add a solid's line integrals in place, over its shadow's window only."""
    window = rays.window(solid)
    interval = ellipsoid_interval(solid, rays.crop(window))
    if within is not None:
        interval = intersection(interval, crop_interval(within, window))
    total[window] += np.float32(attenuation) * length_outside(
        interval, [crop_interval(each, window) for each in outside]
    )


def _pixel_centers(count: int, pixel_cm: float, shift_cm: float) -> ndarray:
    return ((np.arange(count) + 0.5 - count / 2) * pixel_cm - shift_cm).astype(np.float32)

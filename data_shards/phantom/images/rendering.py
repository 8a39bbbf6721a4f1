"""The images of a study with masks and boxes: one frontal, and a lateral where there is one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from data_shards.phantom.images.devices import device_solids, side_marker
from data_shards.phantom.images.drawing import FIELD_HEIGHT_CM, Mask, draw_absorption, rays_of
from data_shards.phantom.images.findings import Category, chest_with
from data_shards.phantom.images.radiograph import Exposure, expose
from data_shards.phantom.study import Study


@dataclass(frozen=True)
class FindingBox:
    """The smallest box around a finding in one lung (or the heart), in pixels."""

    finding: int
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, eq=False)
class RenderedStudy:
    """8-bit images; masks by category and boxes are those of the frontal.

    A mask is the union of the visible regions of all findings of a category.
    """

    frontal: UInt8[ndarray, "height width"]
    lateral: UInt8[ndarray, "height width"] | None
    masks: dict[Category, Mask]
    boxes: tuple[FindingBox, ...]


def render_study(study: Study, *, seed: int, height_px: int, noise: float) -> RenderedStudy:
    """The study's images; `noise` scales the standard deviation of the usual quantum noise.

    Random numbers are those of (seed, study number) alone.
    """
    rng = np.random.default_rng([seed, study.number, 3])
    chest = chest_with(study.anatomy, study.findings, study.lung_volume)
    metal = device_solids(chest, study.devices)
    marker = side_marker() if rng.random() < 0.6 else ()
    portable = study.projection == "AP"
    exposure = Exposure(
        photons_per_cm2=rng.uniform(1.0, 2.0) * (4e4 if portable else 1e5) / max(noise, 1e-3) ** 2,
        scatter=rng.uniform(0.12, 0.2) if portable else rng.uniform(0.05, 0.12),
        equalised=rng.uniform(0.4, 0.75),
        collimation_px=int(rng.integers(1, 4)) * height_px // 128 if rng.random() < 0.15 else 0,
    )
    pixel_cm = FIELD_HEIGHT_CM / height_px
    frontal_rays = rays_of("frontal", height_px, study.pose)
    absorption = draw_absorption(chest, study.findings, frontal_rays, (*metal, *marker))
    frontal = expose(absorption.line_integrals, pixel_cm, exposure, rng)
    lateral = None
    if study.has_lateral:
        rays = rays_of("lateral", height_px, study.lateral_pose)
        through = draw_absorption(chest, study.findings, rays, metal).line_integrals
        # A lateral passes through twice the tissue and is taken at a higher dose.
        dose = replace(exposure, photons_per_cm2=12.0 * exposure.photons_per_cm2)
        lateral = expose(through, pixel_cm, dose, rng)
    masks: dict[Category, Mask] = {}
    boxes: list[FindingBox] = []
    for index, regions in enumerate(absorption.regions):
        category = study.findings[index].category
        for _, mask in regions:
            if mask.any():
                boxes.append(tight_box(index, mask))
                masks[category] = masks.get(category, False) | mask
    return RenderedStudy(frontal, lateral, masks, tuple(boxes))


def tight_box(finding: int, mask: Mask) -> FindingBox:
    """The smallest box that holds a mask, which must not be empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return FindingBox(finding, x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y)

"""The 8-bit images of a study, out of line integrals by dose, scatter, blur and contrast.

One frontal with masks and boxes, and a lateral where there is one.
"""

# H rows, W columns of the detector

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from numpy.random import Generator

from data_shards.phantom.images.devices import device_solids, side_marker
from data_shards.phantom.images.drawing import FIELD_HEIGHT_CM, Mask, draw_absorption, rays_of
from data_shards.phantom.images.findings import Category, chest_with
from data_shards.phantom.images.projection import Plane
from data_shards.phantom.study import Study

_BINS = 512


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
    """The study's images by (seed, study number) alone; `noise` scales the usual quantum noise."""
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
    through, regions = draw_absorption(chest, study.findings, frontal_rays, (*metal, *marker))
    frontal = expose(through, pixel_cm, exposure, rng)
    lateral = None
    if study.has_lateral:
        rays = rays_of("lateral", height_px, study.lateral_pose)
        through, _ = draw_absorption(chest, study.findings, rays, metal)
        # A lateral passes through twice the tissue and is taken at a higher dose.
        dose = replace(exposure, photons_per_cm2=12.0 * exposure.photons_per_cm2)
        lateral = expose(through, pixel_cm, dose, rng)
    masks: dict[Category, Mask] = {}
    boxes: list[FindingBox] = []
    for index, finding in enumerate(study.findings):
        category = finding.category
        for mask in regions[index].values():
            if mask.any():
                boxes.append(tight_box(index, mask))
                masks[category] = masks.get(category, False) | mask
    return RenderedStudy(frontal, lateral, masks, tuple(boxes))


def tight_box(finding: int, mask: Mask) -> FindingBox:
    """The smallest box that holds a mask, which must not be empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return FindingBox(finding, x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y)


@dataclass(frozen=True)
class Exposure:
    """How an image was taken.

    `photons_per_cm2` reach the detector beside the patient; `scatter` is the share of a bright
    veil in the mean signal; `equalised` (0 to 1) mixes the histogram-equalised image into the
    plainly windowed one.
    """

    photons_per_cm2: float
    scatter: float
    equalised: float
    collimation_px: int = 0


def expose(
    line_integrals: Plane, pixel_cm: float, exposure: Exposure, rng: Generator
) -> UInt8[ndarray, "height width"]:
    """The 8-bit image: dense tissue bright, as MIMIC-CXR's JPGs are.

    Photon counts are exp(-P) and a veil of scatter, with Poisson noise (as a normal of the same
    variance: counts are in the hundreds and more); the image is their negative logarithm.
    """
    signal = np.exp(-_blur(line_integrals))
    signal += np.float32(exposure.scatter * signal.mean())
    photons = np.float32(exposure.photons_per_cm2 * pixel_cm**2)
    noise = rng.standard_normal(signal.shape, dtype=np.float32)
    signal += np.sqrt(signal / photons) * noise
    density = -np.log(np.maximum(signal, 1 / photons))
    image = _to_grey_levels(density, exposure.equalised)
    edge = exposure.collimation_px
    if edge:
        image[:edge], image[-edge:] = 0, 0
        image[:, :edge], image[:, -edge:] = 0, 0
    return image


def _blur(plane: Plane) -> Plane:
    """A focal spot's blur: the binomial kernel (1, 6, 1) / 8 along both axes."""
    for _ in range(2):
        padded = np.pad(plane, ((1, 1), (0, 0)), "edge")
        blurred = np.float32(0.75) * plane + np.float32(0.125) * (padded[:-2] + padded[2:])
        plane = blurred.T
    return plane


def _to_grey_levels(density: Plane, equalised: float) -> UInt8[ndarray, "height width"]:
    """Window to the patient's range, then move each level towards its rank in the histogram."""
    low, high = np.quantile(density[::2, ::2], (0.02, 0.995))
    level = (density - np.float32(low)) * np.float32((_BINS - 1) / (high - low))
    level = np.clip(level, 0, _BINS - 1).astype(np.intp)
    counts = np.bincount(level.ravel(), minlength=_BINS).astype(np.float64)
    # The background beside the patient takes no share of the grey levels.
    counts[: _BINS // 20] = 0
    rank = np.cumsum(counts) / max(counts.sum(), 1)
    plain = np.linspace(0, 1, _BINS)
    curve = equalised * rank + (1 - equalised) * plain
    grey_levels: UInt8[ndarray, "height width"] = (255 * curve + 0.5).astype(np.uint8)[level]
    return grey_levels

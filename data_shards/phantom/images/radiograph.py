"""From line integrals to the 8-bit image an archive holds: dose, scatter, blur, contrast."""

# H rows, W columns of the detector

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from numpy.random import Generator

from data_shards.phantom.images.projection import Plane

_BINS = 512


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

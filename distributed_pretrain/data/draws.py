"""Random choices for one training sample, drawn on the host from (seed, epoch, sample).

All of a sample's choices come from one generator in a fixed order and number (sentence swaps,
of varying number, last), so that switching one operation off leaves the others as they were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distributed_pretrain.data.config import AugmentationConfig

_CROP_ATTEMPTS = 10
# View, then four numbers an attempt to crop, then flip, affine (4), brightness, contrast, sigma.
_UNIFORMS = 1 + 4 * _CROP_ATTEMPTS + 8
_SAMPLE_STREAM = 0x5A


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a stored image in pixels; it may reach beyond the image, where all is zero."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class AugmentationDraw:
    """One sample's augmentation; operations that are off have values that change nothing.

    Positive angles turn clockwise as seen; translations are fractions of the model's image side.
    """

    window: Window
    flip: bool
    rotation_degrees: float
    translation_x: float
    translation_y: float
    scale: float
    brightness: float
    contrast: float
    blur_sigma_px: float


class SampleDraws:
    """The random choices of one sample in one epoch."""

    def __init__(self, *, seed: int, epoch: int, position: int) -> None:
        state = np.random.SeedSequence((seed, epoch, position, _SAMPLE_STREAM))
        self._random = np.random.Generator(np.random.Philox(state))
        self._uniforms: NDArray[np.float64] = self._random.random(_UNIFORMS)

    def choose(self, options: Sequence[int]) -> int:
        """One of `options` (a study's frontal images)."""
        return options[int(self._uniforms[0] * len(options))]

    def augmentation(
        self, config: AugmentationConfig, *, width: int, height: int
    ) -> AugmentationDraw:
        """The augmentation of a stored image of `width` x `height` pixels."""
        crops, (flip, turn, right, down, scale, brightness, contrast, sigma) = np.split(
            self._uniforms[1:], [4 * _CROP_ATTEMPTS]
        )
        reach = config.translation_fraction if config.affine else 0.0
        return AugmentationDraw(
            window=_random_crop(config, crops.reshape(_CROP_ATTEMPTS, 4), width, height)
            if config.random_resized_crop
            else square_window(width, height),
            flip=config.horizontal_flip and bool(flip < config.flip_probability),
            rotation_degrees=_between(config.rotation_degrees, turn) if config.affine else 0.0,
            translation_x=_between((-reach, reach), right),
            translation_y=_between((-reach, reach), down),
            scale=_between(config.scale, scale) if config.affine else 1.0,
            brightness=_between(config.brightness, brightness)
            if config.brightness_contrast
            else 1.0,
            contrast=_between(config.contrast, contrast) if config.brightness_contrast else 1.0,
            blur_sigma_px=_between(config.blur_sigma_px, sigma) if config.gaussian_blur else 0.0,
        )

    def swap_sentences(self, sentences: Sequence[str], probability: float) -> tuple[str, ...]:
        """`sentences` after a Geometric(probability) number of random swaps, counted from 0."""
        swapped = list(sentences)
        if len(swapped) < 2:
            return tuple(swapped)
        for _ in range(int(self._random.geometric(probability)) - 1):
            first, second = self._random.choice(len(swapped), size=2, replace=False)
            swapped[first], swapped[second] = swapped[second], swapped[first]
        return tuple(swapped)


def square_window(width: int, height: int) -> Window:
    """The smallest square around an image, centred on it: what zero-padding to a square shows."""
    side = max(width, height)
    return Window(left=-((side - width) // 2), top=-((side - height) // 2), width=side, height=side)


def _between(bounds: tuple[float, float], uniform: float) -> float:
    low, high = bounds
    return float(low + (high - low) * uniform)


def _random_crop(
    config: AugmentationConfig, uniforms: NDArray[np.float64], width: int, height: int
) -> Window:
    """torchvision's RandomResizedCrop: the first of ten tries that fits, else a central crop."""
    low, high = config.crop_aspect_ratio
    for area_draw, ratio_draw, left_draw, top_draw in uniforms.tolist():
        area = width * height * _between(config.crop_area_fraction, area_draw)
        ratio = math.exp(_between((math.log(low), math.log(high)), ratio_draw))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(left_draw * (width - w + 1)), int(top_draw * (height - h + 1))
            return Window(left, top, w, h)
    ratio = min(max(width / height, low), high)
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    return Window((width - w) // 2, (height - h) // 2, w, h)

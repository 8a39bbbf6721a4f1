"""Random choices for one training sample, drawn on the host from (seed, epoch, sample).

The choices of one stream come from one generator in a fixed order and number (sentence swaps,
of varying number, last), so that switching one operation off leaves the others as they were.
Each view has a stream of its own, so that asking for one more changes nothing either.

The padded square of an image is the smallest square around it, centred, zero outside the image.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from distributed_pretrain.data.philox import (
    FEWEST_SEARCHED,
    Words,
    geometric_of,
    halves_of,
    raw_words,
    two_of,
    uniforms_of,
)
from distributed_pretrain.data.settings import AugmentationConfig

_CROP_ATTEMPTS = 10
# View, then four numbers an attempt to crop, then flip, affine (4), brightness, contrast, sigma.
_UNIFORMS = 1 + 4 * _CROP_ATTEMPTS + 8
# Some 9 swaps; their number is one more uniform.
_FOR_SWAPS = 14

Stream = Literal["frontal", "lateral", "second_view", "sentence"]
_STREAM_NUMBERS: dict[Stream, int] = {
    "frontal": 0x5A,
    "lateral": 0x1A7,
    "second_view": 0x2D,
    "sentence": 0x5E,
}

Option = TypeVar("Option")


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a stored image in pixels; it may reach beyond the image, where all is zero."""

    left: int
    top: int
    width: int
    height: int


def square_window(
    width: int, height: int, *, fraction: float = 1.0, place: Sequence[float] | None = None
) -> Window:
    """A square of `fraction` of the padded square's side inside it, at whole pixels.

    In the middle, which is what evaluation shows, or at `place` (across, down), both in [0, 1):
    evenly over all places there are.
    """
    whole = max(width, height)
    side = max(1, round(fraction * whole))
    left = top = (whole - side) // 2
    if place is not None:
        left, top = (int(each * (whole - side + 1)) for each in place)
    return Window(left - (whole - width) // 2, top - (whole - height) // 2, side, side)


def stored_to_model_scale(
    width: int, height: int, image_size_px: int, *, crop_fraction: float = 1.0
) -> tuple[float, float, float]:
    """(scale, offset_x, offset_y) in pixels: model = stored * scale + offset, as in evaluation.

    A stored image of `width` x `height` is zero-padded to a centred square, of which the middle
    `crop_fraction` is resized.
    """
    window = square_window(width, height, fraction=crop_fraction)
    scale = image_size_px / window.width
    return scale, -window.left * scale, -window.top * scale


@dataclass(frozen=True, slots=True)
class AugmentationDraw:
    """One sample's augmentation; operations that are off have values that change nothing.

    Positive angles turn clockwise as seen; translations, right and down, are fractions of the
    model's image side.
    """

    window: Window
    flip: bool
    rotation_degrees: float
    translation_fraction: tuple[float, float]
    scale: float
    brightness: float
    contrast: float
    blur_sigma_px: float

    def unwarped(self) -> NDArray[np.float64]:
        """The affine map (2, 3) from a position after flip and affine warp to the one before.

        Positions are (x, y) in [0, 1] from the upper left corner: p -> A (p - c - t) + c with
        A = F R(-angle) / scale, F the flip, t the translation and c the centre.
        """
        angle = math.radians(self.rotation_degrees)
        cosine, sine = math.cos(angle) / self.scale, math.sin(angle) / self.scale
        linear = np.array([[cosine, sine], [-sine, cosine]])
        if self.flip:
            linear[0] *= -1
        centre = np.array([0.5, 0.5])
        moved = centre + np.array(self.translation_fraction)
        return np.concatenate([linear, (centre - linear @ moved)[:, None]], axis=1)


class SampleDraws:
    """The random choices of one sample in one epoch, as far as they concern one stream."""

    def __init__(self, words: Words, uniforms: list[float], for_swaps: list[int]) -> None:
        self._words, self._uniforms, self._for_swaps = words, uniforms, for_swaps

    @classmethod
    def of(cls, *, seed: int, epoch: int, position: int, stream: Stream = "frontal") -> Self:
        """Those of one sample."""
        [draws] = cls.of_all(seed=seed, epoch=epoch, positions=[position], stream=stream)
        return draws

    @classmethod
    def of_all(
        cls, *, seed: int, epoch: int, positions: Sequence[int], stream: Stream
    ) -> list[Self]:
        """The same of several samples, which takes less than of one after another."""
        words = [(seed, epoch, position, _STREAM_NUMBERS[stream]) for position in positions]
        raw = raw_words(words, _UNIFORMS + 1 + _FOR_SWAPS)
        uniforms = uniforms_of(raw[:, : _UNIFORMS + 1])
        return list(map(cls, words, uniforms, halves_of(raw[:, _UNIFORMS + 1 :])))

    def choose(self, options: Sequence[Option]) -> Option:
        """One of `options` (a study's images of a view, a report's sentences)."""
        return options[int(self._uniforms[0] * len(options))]

    def augmentation(
        self, config: AugmentationConfig, *, width: int, height: int
    ) -> AugmentationDraw:
        """The augmentation of a stored image of `width` x `height` pixels."""
        _, *crops, flip, turn, right, down, scale, brightness, contrast, sigma = self._uniforms[:-1]
        affine, levels = config.affine, config.brightness_contrast
        reach = (-config.translation_fraction, config.translation_fraction) if affine else (0, 0)
        return AugmentationDraw(
            window=_crop(config, crops, width, height),
            flip=config.horizontal_flip and flip < config.flip_probability,
            rotation_degrees=_between(config.rotation_degrees, turn) if affine else 0.0,
            translation_fraction=(_between(reach, right), _between(reach, down)),
            scale=_between(config.scale, scale) if affine else 1.0,
            brightness=_between(config.brightness, brightness) if levels else 1.0,
            contrast=_between(config.contrast, contrast) if levels else 1.0,
            blur_sigma_px=_between(config.blur_sigma_px, sigma) if config.gaussian_blur else 0.0,
        )

    def swap_sentences(self, sentences: Sequence[str], probability: float) -> tuple[str, ...]:
        """`sentences` after a Geometric(probability) number of random swaps, counted from 0."""
        swapped = list(sentences)
        if len(swapped) < 2:
            return tuple(swapped)
        for first, second in self._swaps(len(swapped), probability):
            swapped[first], swapped[second] = swapped[second], swapped[first]
        return tuple(swapped)

    def _swaps(self, sentences: int, probability: float) -> list[tuple[int, int]]:
        """As numpy's generator draws them; by itself where there are many, which is rare."""
        if probability >= FEWEST_SEARCHED:
            count = geometric_of(self._uniforms[-1], probability) - 1
            halves = iter(self._for_swaps)
            with contextlib.suppress(StopIteration):
                return [two_of(sentences, halves) for _ in range(count)]
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence(self._words)))
        random.random(_UNIFORMS)
        count = int(random.geometric(probability)) - 1
        return [tuple(random.choice(sentences, size=2, replace=False)) for _ in range(count)]


def _between(bounds: tuple[float, float], uniform: float) -> float:
    low, high = bounds
    return low + (high - low) * uniform


def _crop(config: AugmentationConfig, uniforms: Sequence[float], width: int, height: int) -> Window:
    if config.crop == "random_resized":
        return _random_resized_crop(config, uniforms, width, height)
    if config.crop == "padded_crop":
        fraction, place = config.padded_crop_fraction, uniforms[2:4]
        return square_window(width, height, fraction=fraction, place=place)
    return square_window(width, height, fraction=config.evaluation_crop_fraction)


def _random_resized_crop(
    config: AugmentationConfig, uniforms: Sequence[float], width: int, height: int
) -> Window:
    """torchvision's RandomResizedCrop: the first of ten tries that fits, else a central crop."""
    low, high = config.crop_aspect_ratio
    for area_draw, ratio_draw, left_draw, top_draw in zip(
        *(uniforms[n::4] for n in range(4)), strict=True
    ):
        area = width * height * _between(config.crop_area_fraction, area_draw)
        ratio = math.exp(_between((math.log(low), math.log(high)), ratio_draw))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(left_draw * (width - w + 1)), int(top_draw * (height - h + 1))
            return Window(left, top, w, h)
    ratio = min(max(width / height, low), high)
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    return Window((width - w) // 2, (height - h) // 2, w, h)

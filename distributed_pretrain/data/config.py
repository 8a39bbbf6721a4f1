"""Everything about input that a profile can set: order, reading, text and augmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from data_shards.profiles import Config
from data_shards.records.policies import TextPolicy


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError(f"a range is (smallest, largest), not {list(bounds)}")
    return bounds


def _odd(kernel_px: int) -> int:
    if kernel_px % 2 == 0:
        raise ValueError("a blur kernel has a middle pixel, so its size is odd")
    return kernel_px


Range = Annotated[tuple[float, float], AfterValidator(_ascending)]
PositiveRange = Annotated[
    tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]], AfterValidator(_ascending)
]
Fraction = Annotated[float, Field(ge=0, le=1)]


class AugmentationConfig(Config):
    """LoVT's image augmentation, in the order it is applied; every operation has a switch.

    With `random_resized_crop` off an image is zero-padded to a square and resized, as in
    validation. The flip does not touch the report: "left" and "right" keep their words, which is
    what the authors do and what `horizontal_flip: false` avoids.
    """

    enabled: bool = True
    random_resized_crop: bool = True
    crop_area_fraction: PositiveRange = (0.6, 1.0)
    crop_aspect_ratio: PositiveRange = (3 / 4, 4 / 3)
    horizontal_flip: bool = True
    flip_probability: Fraction = 0.5
    affine: bool = True
    rotation_degrees: Range = (-20.0, 20.0)
    translation_fraction: Fraction = 0.1
    scale: PositiveRange = (0.95, 1.05)
    brightness_contrast: bool = True
    brightness: PositiveRange = (0.6, 1.4)
    contrast: PositiveRange = (0.6, 1.4)
    gaussian_blur: bool = True
    blur_kernel_px: Annotated[int, Field(ge=3), AfterValidator(_odd)] = 23
    blur_sigma_px: PositiveRange = (0.1, 3.0)


class DataConfig(Config):
    """The data path from shards to batches.

    `global_batch` counts studies over all ranks. `max_bad_fraction` is the share of a split that
    may be unreadable before the run stops. `sentence_swap_probability` is p of LoVT's
    Geometric(p) number of swaps, counted from 0.
    """

    shards: Path
    text_policy: TextPolicy = "lovt"
    image_size_px: int = Field(default=224, ge=32)
    global_batch: int = Field(default=512, ge=2)
    shuffle_window_shards: int = Field(default=16, ge=1)
    decode_threads: int | None = Field(default=None, ge=1)
    prefetch_batches: int = Field(default=3, ge=1)
    max_tokens: int = Field(default=512, ge=8)
    sentence_swaps: bool = True
    sentence_swap_probability: float = Field(default=0.4, gt=0, le=1)
    max_bad_fraction: Fraction = 0.01
    augmentation: AugmentationConfig = AugmentationConfig()

"""An image file and a report of one's own, read by the same rules as those that go into shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_shards.errors import InputError
from data_shards.images.conversion import fitted_size, grey_image, resized
from data_shards.images.layout import Size
from data_shards.images.samples import SampleMeaning, eight_bits
from data_shards.records.policies import TextPolicy, select_sentences
from data_shards.records.study import Report
from data_shards.report_text.report import parse_plain_report


class OwnImage(NamedTuple):
    """An image as a shard would hold it, and the size (width, height) that it had, upright."""

    pixels: NDArray[np.uint8]
    original_size: Size


def read_image(path: Path, *, longest_side_px: int) -> OwnImage:
    """An image file in grey, upright, 0 black, shrunk to `longest_side_px` as those of shards.

    It is not stored as a JPEG in between: an image of a shard comes out as it lies there. Raises
    InputError for what a build would refuse.
    """
    grey = grey_image(path, longest_side_px=longest_side_px)
    return OwnImage(np.asarray(grey.pixels), grey.original_size)


def image_of_array(samples: NDArray[Any], *, longest_side_px: int) -> OwnImage:
    """The same of samples (height, width), 0 black: whole numbers over the span of their type.

    Floats are fractions, 0 to 1. Raises InputError for another shape, type or range.
    """
    grey = Image.fromarray(_grey_of_array(samples))
    size = fitted_size(*grey.size, longest_side_px)
    return OwnImage(np.asarray(resized(grey, size)), grey.size)


def sentences_of(report: str | Report, policy: TextPolicy) -> tuple[str, ...]:
    """The sentences of a report, or of a phrase, that a method with this text policy reads.

    A text may have any layout; the report of a shard's study is read already. Raises InputError
    where there are none.
    """
    read = parse_plain_report(report) if isinstance(report, str) else report
    sentences = select_sentences(read, policy)
    if not sentences:
        shown = " ".join(read.raw.split())
        shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
        raise InputError(
            f"{shown!r}: a report of which text policy {policy} takes no sentence: give its "
            "findings or impression"
        )
    return sentences


def _grey_of_array(samples: NDArray[Any]) -> NDArray[np.uint8]:
    if samples.ndim != 2 or not samples.size:
        raise InputError(
            f"an image of shape {samples.shape}: one channel is wanted, (height, width)"
        )
    if samples.dtype == np.uint8:
        return samples.astype(np.uint8)
    if samples.dtype == np.uint16:
        return eight_bits(samples, SampleMeaning(16)).pixels
    if np.issubdtype(samples.dtype, np.floating):
        if not (samples.min() >= 0 and samples.max() <= 1):  # NaN is neither
            raise InputError(
                f"an image of floats from {samples.min():g} to {samples.max():g}: fractions are "
                "wanted, 0 (black) to 1 (white)"
            )
        rounded: NDArray[np.uint8] = np.rint(samples * 255).astype(np.uint8)
        return rounded
    raise InputError(
        f"an image of {samples.dtype}: give uint8, uint16 (0 to 65,535), or floats from 0 to 1"
    )

"""Windows of stored images: which part a model is shown, and where it shows it.

The padded square of an image is the smallest square around it, centred, zero outside the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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
    """(scale, offset_x, offset_y) in pixels: model = stored * scale + offset, as in evaluation."""
    window = square_window(width, height, fraction=crop_fraction)
    scale = image_size_px / window.width
    return scale, -window.left * scale, -window.top * scale

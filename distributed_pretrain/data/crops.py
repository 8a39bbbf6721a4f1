"""Windows of stored images: which part a model is shown, and where it shows it.

The padded square of an image is the smallest square around it, centred, zero outside the image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a stored image in pixels; it may reach beyond the image, where all is zero."""

    left: int
    top: int
    width: int
    height: int


def square_window(width: int, height: int) -> Window:
    """The padded square of an image."""
    side = max(width, height)
    return Window(left=-((side - width) // 2), top=-((side - height) // 2), width=side, height=side)


def square_crop(width: int, height: int, *, fraction: float, across: float, down: float) -> Window:
    """A square of `fraction` of the padded square's side inside it, at whole pixels.

    `across` and `down` in [0, 1) place it: evenly over all places there are.
    """
    square = square_window(width, height)
    side = max(1, round(fraction * square.width))
    places = square.width - side + 1
    return Window(
        left=square.left + int(across * places),
        top=square.top + int(down * places),
        width=side,
        height=side,
    )


def central_window(width: int, height: int, *, fraction: float) -> Window:
    """What evaluation shows: the middle `fraction` of the padded square's side (1: all of it)."""
    square = square_window(width, height)
    side = max(1, round(fraction * square.width))
    margin = (square.width - side) // 2
    return Window(left=square.left + margin, top=square.top + margin, width=side, height=side)


def stored_to_model_scale(
    width: int, height: int, image_size_px: int, *, crop_fraction: float = 1.0
) -> tuple[float, float, float]:
    """(scale, offset_x, offset_y) in pixels: model = stored * scale + offset, as in evaluation.

    A stored image of `width` x `height` is zero-padded to a centred square, of which the middle
    `crop_fraction` is resized.
    """
    window = central_window(width, height, fraction=crop_fraction)
    scale = image_size_px / window.width
    return scale, -window.left * scale, -window.top * scale


def window_to_square(window: Window, *, width: int, height: int) -> NDArray[np.float64]:
    """The affine map (2, 3) from positions in a window to positions in the padded square.

    Both are (x, y) in [0, 1] from the upper left corner.
    """
    square = square_window(width, height)
    return np.array(
        [
            [window.width, 0, window.left - square.left],
            [0, window.height, window.top - square.top],
        ]
    ) / float(square.width)

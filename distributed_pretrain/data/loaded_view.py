"""Views of stored images on the host, cut but not yet resized: what lies inside a window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distributed_pretrain.data.augmentation_parameters import (
    AugmentationDraw,
    Window,
    square_window,
)

# Rows of images, (rows, 1, height, width): what is read together lies in one from the beginning.
Canvas: TypeAlias = NDArray[np.uint8]


def empty_canvas(windows: Sequence[Window]) -> Canvas:
    """Zeros with a row of room for each window."""
    height, width = (
        max(sizes) for sizes in zip(*((w.height, w.width) for w in windows), strict=True)
    )
    return np.zeros((len(windows), 1, height, width), dtype=np.uint8)


@dataclass(frozen=True)
class LoadedView:
    """A window of a stored image, in the upper left corner of a row of a canvas.

    What lies beyond the image is zero, as is the rest of the row. The image has `width` x `height`
    pixels. `draw` is None for a view that is only resized.
    """

    canvas: Canvas
    row: int
    window: Window
    draw: AugmentationDraw | None
    width: int
    height: int

    @classmethod
    def cut(cls, image: NDArray[np.uint8], window: Window, draw: AugmentationDraw | None) -> Self:
        """The view of `image` (H, W) through `window`, on a canvas of its own."""
        height, width = image.shape
        return cls(empty_canvas([window]), 0, window, draw, width, height).filled(image)

    def filled(self, image: NDArray[np.uint8]) -> Self:
        """Put there what lies of `image` (H, W) inside the window."""
        window = self.window
        rows = slice(max(0, window.top), max(0, window.top + window.height))
        columns = slice(max(0, window.left), max(0, window.left + window.width))
        self.pixels[:] = image[rows, columns]
        return self

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """What lies of the image inside the window, (height, width), in the canvas."""
        window = self.window
        top, left = max(0, -window.top), max(0, -window.left)
        bottom = min(window.height, self.height - window.top)
        right = min(window.width, self.width - window.left)
        return self.canvas[self.row, 0, top:bottom, left:right]

    def to_image(self) -> NDArray[np.float64]:
        """The affine map (2, 3) from the augmented view to the image's padded square.

        Positions are (x, y) in [0, 1] on both sides, see `SecondView.view_to_image`.
        """
        window, square = self.window, square_window(self.width, self.height)
        across = [window.width, 0, window.left - square.left]
        down = [0, window.height, window.top - square.top]
        in_window = np.array([across, down]) / float(square.width)
        if self.draw is None:
            return in_window
        unwarped = self.draw.unwarped()
        linear = in_window[:, :2] @ unwarped[:, :2]
        shift = in_window[:, :2] @ unwarped[:, 2:] + in_window[:, 2:]
        return np.concatenate([linear, shift], axis=1)

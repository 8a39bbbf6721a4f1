"""One view of a study in host memory: the pixels to show and how to show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from distributed_pretrain.data.augmentation_parameters import AugmentationDraw
from distributed_pretrain.data.crops import Window, window_to_square


@dataclass(frozen=True)
class LoadedView:
    """A window of a stored image and, in `pixels`, what lies of the image inside it.

    The image has `width` x `height` pixels. `draw` is None for a view that is only resized.
    """

    pixels: NDArray[np.uint8]
    window: Window
    draw: AugmentationDraw | None
    width: int
    height: int

    @classmethod
    def cut(cls, image: NDArray[np.uint8], window: Window, draw: AugmentationDraw | None) -> Self:
        """The view of `image` (H, W) through `window`."""
        rows = slice(max(0, window.top), max(0, window.top + window.height))
        columns = slice(max(0, window.left), max(0, window.left + window.width))
        height, width = image.shape
        return cls(image[rows, columns], window, draw, width, height)

    def paste_into(self, canvas: NDArray[np.uint8]) -> None:
        """Put the window in the upper left corner of `canvas` (H, W), which is zero."""
        height, width = self.pixels.shape
        top, left = max(0, -self.window.top), max(0, -self.window.left)
        canvas[top : top + height, left : left + width] = self.pixels

    def to_image(self) -> NDArray[np.float64]:
        """The affine map (2, 3) from the augmented view to the image's padded square.

        Positions are (x, y) in [0, 1] on both sides, see `Batch.view_to_image`.
        """
        in_window = window_to_square(self.window, width=self.width, height=self.height)
        if self.draw is None:
            return in_window
        unwarped = self.draw.unwarped()
        linear = in_window[:, :2] @ unwarped[:, :2]
        shift = in_window[:, :2] @ unwarped[:, 2:] + in_window[:, 2:]
        return np.concatenate([linear, shift], axis=1)

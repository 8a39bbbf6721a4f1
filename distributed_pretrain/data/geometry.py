"""From boxes and masks of stored images to the squares a model sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from data_shards.records.study import Box, ImageRecord, StudyRecord
from distributed_pretrain.data.augmentation_parameters import stored_to_model_scale


@dataclass(frozen=True)
class ModelSquare:
    """What a model sees of a stored image, on `size_px` x `size_px` pixels.

    That is the middle `crop_fraction` (of its side) of the image's padded square, and of that the
    `window` (left, top, side), in fractions.
    """

    image: ImageRecord
    size_px: int
    crop_fraction: float = 1.0
    window: tuple[float, float, float] = (0.0, 0.0, 1.0)

    def box(self, box: Box) -> tuple[float, float, float, float]:
        """(x, y, width, height) of a stored box in the model's pixels, perhaps beyond them."""
        scale, left, top = self._placement()
        return box.x * scale + left, box.y * scale + top, box.width * scale, box.height * scale

    def inside(self, boxes: Sequence[Box]) -> Bool[Tensor, "size size"]:
        """The union of stored boxes: pixels whose centre is inside."""
        centres = self._centres()
        inside = torch.zeros(self.size_px, self.size_px, dtype=torch.bool)
        for x, y, width, height in map(self.box, boxes):
            columns = (centres > x) & (centres < x + width)
            rows = (centres > y) & (centres < y + height)
            inside |= rows[:, None] & columns[None, :]
        return inside

    def extent(self) -> Bool[Tensor, "size size"]:
        """True where the square shows the image."""
        return self.inside([Box(0, 0, 0, self.image.width, self.image.height, "")])

    def share_shown(self, boxes: Sequence[Box]) -> float:
        """How much of the area of stored boxes the square shows, in [0, 1]; all of no area."""
        shown, size = 0.0, self.size_px
        for x, y, width, height in map(self.box, boxes):
            across, down = min(x + width, size) - max(x, 0), min(y + height, size) - max(y, 0)
            shown += max(0.0, across) * max(0.0, down)
        scale, _, _ = self._placement()
        area = scale**2 * sum(each.width * each.height for each in boxes)
        return shown / area if area else 1.0

    def mask(
        self, stored: NDArray[np.uint8] | UInt8[Tensor, "height width"]
    ) -> Bool[Tensor, "size size"]:
        """A stored mask: each pixel takes the nearest stored one."""
        scale, left, top = self._placement()
        columns, rows = (
            ((self._centres() - start) / scale).floor().long() for start in (left, top)
        )
        # Beside the image there is nothing.
        found = F.pad(torch.as_tensor(stored) > 0, (1, 1, 1, 1))
        rows, columns = (
            (rows + 1).clamp(0, len(found) - 1),
            (columns + 1).clamp(0, found.shape[1] - 1),
        )
        return found[rows][:, columns]

    def _placement(self) -> tuple[float, float, float]:
        scale, left, top = stored_to_model_scale(
            self.image.width, self.image.height, self.size_px, crop_fraction=self.crop_fraction
        )
        from_left, from_top, side = self.window
        return (
            scale / side,
            (left - from_left * self.size_px) / side,
            (top - from_top * self.size_px) / side,
        )

    def _centres(self) -> Float[Tensor, " size"]:
        return torch.arange(self.size_px) + 0.5


def evaluated_image(record: StudyRecord) -> int:
    """Position of the image an evaluation uses: the first frontal by id."""
    return record.frontal_images()[0]


def boxes_by_phrase(record: StudyRecord) -> dict[str, list[Box]]:
    """The boxes with each phrase, on the image that is evaluated."""
    shown = evaluated_image(record)
    found: dict[str, list[Box]] = {}
    for box in record.boxes:
        if box.phrase and box.image == shown:
            found.setdefault(box.phrase, []).append(box)
    return found


def region_map_on_pixels(
    regions: Float[Tensor, "maps rows columns"], size_px: int
) -> Float[Tensor, "maps size size"]:
    """Values of a grid of regions, bilinearly spread over the pixels of the image."""
    size = (size_px, size_px)
    return F.interpolate(regions[:, None], size, mode="bilinear", align_corners=False)[:, 0]

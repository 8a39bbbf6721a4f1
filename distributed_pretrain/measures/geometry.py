"""From boxes and masks of stored images to the squares a model sees.

A model sees the middle `crop_fraction` (of its side) of an image's padded square.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from numpy.typing import NDArray
from torch import Tensor

from data_shards.records.study import Box, ImageRecord, StudyRecord
from distributed_pretrain.data.crops import stored_to_model_scale


def evaluated_image(record: StudyRecord) -> int:
    """Position of the image an evaluation uses: the first frontal by id."""
    return record.frontal_images()[0]


def region_map_on_pixels(
    regions: Float[Tensor, "maps regions"], grid: tuple[int, int], image_size_px: int
) -> Float[Tensor, "maps size size"]:
    """Values of a row-major grid of regions, bilinearly spread over the pixels of the image."""
    maps = regions.reshape(len(regions), 1, *grid)
    size = (image_size_px, image_size_px)
    spread = torch.nn.functional.interpolate(maps, size, mode="bilinear", align_corners=False)
    return spread[:, 0]


def image_extent(
    image: ImageRecord, image_size_px: int, *, crop_fraction: float = 1.0
) -> Bool[Tensor, "size size"]:
    """True where the model's square shows the image."""
    whole = Box(0, 0, 0, image.width, image.height, "")
    return boxes_mask([whole], image, image_size_px, crop_fraction=crop_fraction)


def box_on_model_square(
    box: Box, image: ImageRecord, image_size_px: int, *, crop_fraction: float = 1.0
) -> tuple[float, float, float, float]:
    """(x, y, width, height) of a stored box in the model's pixels, perhaps beyond its square."""
    scale, left, top = stored_to_model_scale(
        image.width, image.height, image_size_px, crop_fraction=crop_fraction
    )
    return box.x * scale + left, box.y * scale + top, box.width * scale, box.height * scale


def boxes_mask(
    boxes: Sequence[Box], image: ImageRecord, image_size_px: int, *, crop_fraction: float = 1.0
) -> Bool[Tensor, "size size"]:
    """The union of boxes (stored pixels) on the model's square: pixels whose centre is inside."""
    centres = torch.arange(image_size_px) + 0.5
    inside = torch.zeros(image_size_px, image_size_px, dtype=torch.bool)
    for box in boxes:
        x, y, width, height = box_on_model_square(
            box, image, image_size_px, crop_fraction=crop_fraction
        )
        columns = (centres > x) & (centres < x + width)
        rows = (centres > y) & (centres < y + height)
        inside |= rows[:, None] & columns[None, :]
    return inside


def mask_on_model_square(
    mask: NDArray[np.uint8] | UInt8[Tensor, "height width"],
    image: ImageRecord,
    image_size_px: int,
    *,
    crop_fraction: float = 1.0,
) -> Bool[Tensor, "size size"]:
    """A stored mask on the model's square: each pixel takes the nearest stored one."""
    values = torch.as_tensor(mask) > 0
    scale, left, top = stored_to_model_scale(
        image.width, image.height, image_size_px, crop_fraction=crop_fraction
    )
    centres = torch.arange(image_size_px) + 0.5
    columns = torch.floor((centres - left) / scale).long()
    rows = torch.floor((centres - top) / scale).long()
    inside_columns = (columns >= 0) & (columns < image.width)
    inside_rows = (rows >= 0) & (rows < image.height)
    picked = values[rows.clamp(0, image.height - 1)][:, columns.clamp(0, image.width - 1)]
    return picked & inside_rows[:, None] & inside_columns[None, :]

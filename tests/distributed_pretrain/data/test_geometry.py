"""Boxes and masks on the model's square."""

from __future__ import annotations

import pytest
import torch

from data_shards.records.study import Box, ImageRecord
from distributed_pretrain.data.geometry import ModelSquare, region_map_on_pixels

SIZE_PX = 32


def _square(
    width: int, height: int, *, size_px: int = SIZE_PX, crop_fraction: float = 1.0
) -> ModelSquare:
    image = ImageRecord("a", "PA", "image0.jpg", width, height, width, height)
    return ModelSquare(image, size_px, crop_fraction)


def _box(x: float, y: float, width: float, height: float) -> Box:
    return Box(0, x, y, width, height, "Opacity")


def test_a_wide_image_lies_between_bands_of_padding() -> None:
    extent = _square(width=64, height=32).extent()
    assert extent[8:24].all()
    assert not extent[:8].any()
    assert not extent[24:].any()


def test_a_tall_image_lies_between_columns_of_padding() -> None:
    extent = _square(width=32, height=64).extent()
    assert torch.equal(extent, _square(width=64, height=32).extent().T)


def test_boxes_are_scaled_and_moved_with_their_image() -> None:
    # 128 x 64 stored pixels on 32: a quarter of the size, 8 rows of padding above.
    mask = _square(width=128, height=64).inside([_box(16, 8, 32, 16)])
    expected = torch.zeros(SIZE_PX, SIZE_PX, dtype=torch.bool)
    expected[10:14, 4:12] = True
    assert torch.equal(mask, expected)


def test_several_boxes_are_a_union() -> None:
    square = _square(SIZE_PX, SIZE_PX)
    first, second = _box(0, 0, 8, 8), _box(4, 4, 8, 8)
    union = square.inside([first, second])
    assert torch.equal(union, square.inside([first]) | square.inside([second]))
    assert union.sum() == 64 + 64 - 16


def test_what_a_crop_hides_of_boxes_is_counted() -> None:
    boxes = [_box(0, 0, 32, 32), _box(16, 0, 32, 32)]
    assert _square(128, 64).share_shown(boxes) == pytest.approx(1)
    # The middle half of the padded square has all of the image's rows, and its columns 32 to 96.
    assert _square(128, 64, crop_fraction=0.5).share_shown(boxes) == pytest.approx(16 / 64)
    assert _square(128, 128, crop_fraction=0.5).share_shown(boxes) == 0
    # Too small for a pixel's centre.
    assert _square(2000, 2000).share_shown([_box(3, 3, 4, 4)]) == pytest.approx(1)
    assert _square(128, 64).share_shown([_box(3, 3, 0, 4)]) == 1


def test_a_mask_of_a_box_lands_where_the_box_does() -> None:
    square = _square(width=96, height=120)
    stored = torch.zeros(120, 96, dtype=torch.uint8)
    stored[40:80, 10:70] = 255
    box = _box(10, 40, 60, 40)
    assert torch.equal(square.mask(stored), square.inside([box]))
    assert torch.equal(square.mask(torch.ones_like(stored)), square.extent())


def test_a_crop_moves_and_enlarges_boxes_masks_and_the_extent_alike() -> None:
    # The middle 48 of 64 px on 32: two thirds of a pixel each, beginning at 8.
    square = _square(width=64, height=64, crop_fraction=0.75)
    expected = torch.zeros(SIZE_PX, SIZE_PX, dtype=torch.bool)
    expected[8:16, 4:8] = True
    box, stored = _box(14, 20, 6, 12), torch.zeros(64, 64, dtype=torch.uint8)
    stored[20:32, 14:20] = 1
    assert torch.equal(square.inside([box]), expected)
    assert torch.equal(square.mask(stored), expected)
    assert square.extent().all()
    assert not square.inside([_box(0, 0, 8, 64)]).any()


def test_padding_that_a_crop_leaves_is_no_image() -> None:
    # 64 x 40 stored: padding of 12 rows, 4 of which lie inside the crop of 48.
    extent = _square(width=64, height=40, size_px=48, crop_fraction=0.75).extent()
    assert extent[4:44].all()
    assert not extent[:4].any()
    assert not extent[44:].any()


def test_regions_are_row_major_and_spread_over_the_image() -> None:
    spread = region_map_on_pixels(torch.arange(6.0).view(1, 2, 3), SIZE_PX)[0]
    corners = spread[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.tolist() == [0, 2, 3, 5]

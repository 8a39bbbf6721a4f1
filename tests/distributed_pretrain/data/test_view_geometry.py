"""Which part of an image a view shows, and where: against torchvision and by tracing positions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from distributed_pretrain.data.augmentation import DeviceTransform
from distributed_pretrain.data.augmentation_parameters import (
    SampleDraws,
    square_window,
    stored_to_model_scale,
)
from distributed_pretrain.data.sample import LoadedView
from distributed_pretrain.data.settings import AugmentationConfig
from tests.distributed_pretrain.phantom_batches import host_batch

CPU = torch.device("cpu")
# LIMITR's: 224 of 256, shown at 299 px, pixels less 0.5 by 0.5.
LIMITR = AugmentationConfig(
    crop="padded_crop",
    evaluation_crop_fraction=224 / 256,
    horizontal_flip=False,
    affine=False,
    brightness_contrast=False,
    gaussian_blur=False,
)
GEOMETRY_ONLY = {"brightness_contrast": False, "gaussian_blur": False}


def shown(views: list[LoadedView], config: AugmentationConfig, *, side_px: int) -> Tensor:
    """The views through the real transform, in [0, 1]."""
    transform = DeviceTransform(config, image_size_px=side_px, pixel_mean=0, pixel_std=1)
    return transform(host_batch(views), CPU).images[:, 0]


def textured(height: int, width: int) -> NDArray[np.uint8]:
    random = np.random.default_rng(height)
    coarse = random.integers(0, 200, (height // 8 + 1, width // 8 + 1)).repeat(8, 0).repeat(8, 1)
    noise = random.integers(0, 56, (height, width))
    image: NDArray[np.uint8] = (coarse[:height, :width] + noise).astype(np.uint8)
    return image


def padded_square(image: NDArray[np.uint8]) -> Tensor:
    height, width = image.shape
    side = max(height, width)
    left, top = (side - width) // 2, (side - height) // 2
    pixels = torch.from_numpy(image)[None] / 255
    padded: Tensor = tv.pad(pixels, [left, top, side - width - left, side - height - top])
    return padded


@pytest.mark.parametrize(("height", "width"), [(256, 197), (144, 256), (256, 256)])
def test_a_padded_crop_is_torchvisions_pad_crop_and_resize(height: int, width: int) -> None:
    image = textured(height, width)
    draws = [
        SampleDraws.of(seed=3, epoch=0, position=i).augmentation(LIMITR, width=width, height=height)
        for i in range(4)
    ]
    views = [LoadedView.cut(image, draw.window, draw) for draw in draws]
    square = square_window(width, height)
    for draw, ours in zip(draws, shown(views, LIMITR, side_px=299), strict=True):
        top, left = draw.window.top - square.top, draw.window.left - square.left
        crop = tv.crop(padded_square(image), top, left, 224, 224)
        theirs = tv.resize(crop, [299, 299], antialias=True)[0]
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


@pytest.mark.parametrize(("height", "width", "crop"), [(256, 197, 224), (320, 300, 280)])
def test_evaluation_shows_torchvisions_centre_crop(height: int, width: int, crop: int) -> None:
    image = textured(height, width)
    window = square_window(width, height, fraction=LIMITR.evaluation_crop_fraction)
    ours = shown([LoadedView.cut(image, window, None)], LIMITR, side_px=299)[0]
    theirs = tv.resize(tv.center_crop(padded_square(image), [crop, crop]), [299, 299])[0]
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


def test_padded_crops_lie_anywhere_in_the_square_and_nowhere_else() -> None:
    windows = [
        SampleDraws.of(seed=0, epoch=0, position=i)
        .augmentation(LIMITR, width=256, height=200)
        .window
        for i in range(2000)
    ]
    assert {(window.width, window.height) for window in windows} == {(224, 224)}
    assert {window.left for window in windows} == set(range(0, 33))
    assert {window.top for window in windows} == set(range(-28, 5))


def test_stored_positions_map_to_where_a_cropping_evaluation_shows_them() -> None:
    side, fraction = 162, 130 / 162
    image = np.zeros((side, side), np.uint8)
    image[60:80, 20:40] = 255
    window = square_window(side, side, fraction=fraction)
    config = AugmentationConfig()
    visible = shown([LoadedView.cut(image, window, None)], config, side_px=65)[0]
    scale, offset_x, offset_y = stored_to_model_scale(side, side, 65, crop_fraction=fraction)
    assert scale == 0.5
    rows, columns = (visible > 0.5).nonzero().unbind(1)
    assert int(rows.min()) == round(60 * scale + offset_y)
    assert int(rows.max()) + 1 == round(80 * scale + offset_y)
    assert int(columns.min()) == round(20 * scale + offset_x)
    assert int(columns.max()) + 1 == round(40 * scale + offset_x)


def pixel_positions(side_px: int) -> Tensor:
    """(x, y, 1) of each pixel's centre over the side, (3, side, side)."""
    line = (torch.arange(side_px, dtype=torch.float64) + 0.5) / side_px
    y, x = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)])


@pytest.mark.parametrize(
    "config",
    [
        AugmentationConfig.model_validate(GEOMETRY_ONLY),
        AugmentationConfig.model_validate(
            {**GEOMETRY_ONLY, "crop": "padded_crop", "rotation_degrees": (-60, 60)}
        ),
        AugmentationConfig.model_validate({**GEOMETRY_ONLY, "affine": False}),
    ],
    ids=["LoVT's", "turned far", "no affine warp"],
)
def test_a_view_shows_each_position_where_its_map_says(config: AugmentationConfig) -> None:
    """An image of its own coordinates goes through the real transform, its map beside it."""
    height, width, side_px = 180, 250, 96
    # Positions in the padded square, as grey levels: where x is 0.3 the image shows 0.3.
    across = ((np.arange(width) + 0.5) / width)[None].repeat(height, 0)
    down = ((np.arange(height) + 0.5 + (width - height) // 2) / width)[:, None].repeat(width, 1)
    inside = np.ones((height, width))
    images = [np.round(255 * each).astype(np.uint8) for each in (across, down, inside)]
    flips = set()
    for position in range(12):
        draw = SampleDraws.of(seed=5, epoch=0, position=position).augmentation(
            config, width=width, height=height
        )
        flips.add(draw.flip)
        views = [LoadedView.cut(image, draw.window, draw) for image in images]
        x, y, visible = shown(views, config, side_px=side_px).double()
        expected = torch.einsum(
            "ij,jhw->ihw", torch.from_numpy(views[0].to_image()), pixel_positions(side_px)
        )
        # Away from the edges, where a pixel is mixed with what lies beyond.
        clear = -torch.nn.functional.max_pool2d(-visible[None], 5, 1, 2)[0] > 0.999
        clear[:3] = clear[-3:] = clear[:, :3] = clear[:, -3:] = False
        assert clear.sum() > 1000
        error = (torch.stack([x, y]) - expected)[:, clear]
        # A grey level is 0.004, half a pixel of the view 0.005.
        assert error.mean(1).abs().max() < 5e-4
        assert error.abs().max() < 4e-3
    assert flips == {True, False}


def test_the_whole_padded_square_unaugmented_maps_to_itself() -> None:
    view = LoadedView.cut(textured(90, 120), square_window(120, 90), None)
    np.testing.assert_array_equal(view.to_image(), np.eye(2, 3))

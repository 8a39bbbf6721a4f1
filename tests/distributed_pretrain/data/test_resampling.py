"""Resizing, warping and colours against torchvision's, image by image."""

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from distributed_pretrain.data.resampling import (
    adjust_brightness,
    adjust_contrast,
    affine_warp,
    gaussian_blur,
    resize_windows,
)
from tests.distributed_pretrain.data.textures import SIDE, TOLERANCE, textured


@pytest.mark.parametrize(
    ("heights", "widths"),
    [((200, 110, 131), (150, 180, 97)), ((96, 96, 96), (96, 96, 96)), ((40, 71, 95), (60, 33, 96))],
    ids=["shrinking", "same size", "enlarging"],
)
def test_resizing_windows_is_torchvisions_antialiased_resize(
    heights: tuple[int, ...], widths: tuple[int, ...]
) -> None:
    canvas = textured(3, 210, 190)
    sizes = torch.tensor([heights, widths]).T
    ours = resize_windows(canvas, sizes, side_px=SIDE)
    for image, height, width, resized in zip(canvas, heights, widths, ours, strict=True):
        window = image[None, :height, :width]
        theirs = tv.resize(window, [SIDE, SIDE], antialias=True)
        torch.testing.assert_close(resized, theirs[0], atol=TOLERANCE, rtol=0)


def test_what_lies_outside_a_window_has_no_influence() -> None:
    canvas, sizes = textured(2, 120, 120), torch.tensor([[90, 77], [63, 120]])
    expected = resize_windows(canvas, sizes, side_px=SIDE)
    canvas[0, 90:], canvas[0, :, 77:], canvas[1, 63:] = 1e6, -1e6, 1e6
    torch.testing.assert_close(resize_windows(canvas, sizes, side_px=SIDE), expected)


def test_the_warp_is_torchvisions_flip_then_affine() -> None:
    images = textured(4, SIDE, SIDE)
    flips, angles = [False, True, True, False], [0.0, 13.7, -20.0, 7.3]
    shifts, scales = [(0, 0), (5, -7), (-9, 2), (3, 9)], [1.0, 0.95, 1.05, 1.02]
    ours = affine_warp(
        images,
        mirrored=torch.tensor(flips),
        rotation_degrees=torch.tensor(angles),
        translation_fraction=torch.tensor(shifts) / SIDE,
        scale=torch.tensor(scales),
    )
    for i in range(4):
        image = images[i, None].flip(-1) if flips[i] else images[i, None]
        theirs = tv.affine(
            image,
            angle=angles[i],
            translate=list(shifts[i]),
            scale=scales[i],
            shear=[0.0, 0.0],
            interpolation=InterpolationMode.BILINEAR,
        )
        # Coordinates of some hundred pixels carry float32 errors of 1e-5 px.
        torch.testing.assert_close(ours[i], theirs[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.4])
def test_brightness_and_contrast_are_torchvisions(factor: float) -> None:
    images = textured(2, SIDE, SIDE)
    factors = torch.tensor([factor, 1.0])
    bright, contrast = adjust_brightness(images, factors), adjust_contrast(images, factors)
    theirs = tv.adjust_brightness(images[:1], factor), tv.adjust_contrast(images[:1], factor)
    torch.testing.assert_close(bright[:1], theirs[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(contrast[:1], theirs[1], atol=1e-6, rtol=0)
    torch.testing.assert_close(bright[1], images[1])


def test_the_blur_is_torchvisions() -> None:
    images, sigmas = textured(4, SIDE, SIDE), [0.1, 0.7, 1.9, 3.0]
    ours = gaussian_blur(images, torch.tensor(sigmas), kernel_px=23)
    for image, sigma, blurred in zip(images, sigmas, ours, strict=True):
        theirs = tv.gaussian_blur(image[None], [23, 23], [sigma, sigma])[0]
        torch.testing.assert_close(blurred, theirs, atol=TOLERANCE, rtol=0)

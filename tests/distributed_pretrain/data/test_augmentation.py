"""Batched augmentation against torchvision's, image by image."""

import hashlib
from dataclasses import astuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from distributed_pretrain.data.augmentation import DeviceTransform
from distributed_pretrain.data.augmentation_parameters import AugmentationDraw, SampleDraws
from distributed_pretrain.data.crops import square_window, stored_to_model_scale
from distributed_pretrain.data.host_batch import HostBatch
from distributed_pretrain.data.resampling import (
    adjust_brightness,
    adjust_contrast,
    affine_warp,
    gaussian_blur,
    resize_windows,
)
from distributed_pretrain.data.sample import LoadedView
from distributed_pretrain.data.settings import AugmentationConfig
from tests.distributed_pretrain.phantom_batches import host_batch

CPU = torch.device("cpu")
SIDE = 96
# float32 sums of some hundred terms in [0, 1], added in another order.
TOLERANCE = 2e-5


def textured(*shape: int, seed: int = 0) -> Tensor:
    """Images in [0, 1] with edges and fine structure, where a wrong half pixel shows."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(shape[0], 1, 6, 6, generator=random)
    smooth = torch.nn.functional.interpolate(coarse, shape[1:], mode="nearest")[:, 0]
    return 0.7 * smooth + 0.3 * torch.rand(shape, generator=random)


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


def view(image: Tensor, draw: AugmentationDraw | None) -> LoadedView:
    pixels = (image * 255).round().to(torch.uint8).numpy()
    window = draw.window if draw else square_window(pixels.shape[1], pixels.shape[0])
    return LoadedView.cut(pixels, window, draw)


def training_batch(config: AugmentationConfig, count: int = 20) -> tuple[Tensor, HostBatch]:
    images = textured(count, 130, 150, seed=4)
    draws = [
        SampleDraws(seed=1, epoch=0, position=i).augmentation(config, width=150, height=130)
        for i in range(count)
    ]
    return images, host_batch([view(x, d) for x, d in zip(images, draws, strict=True)])


def torchvision_chain(image: Tensor, draw: AugmentationDraw) -> Tensor:
    window = draw.window
    x = (image[None] * 255).round() / 255
    size = [SIDE, SIDE]
    x = tv.resized_crop(x, window.top, window.left, window.height, window.width, size)
    x = tv.horizontal_flip(x) if draw.flip else x
    x = tv.affine(
        x,
        angle=draw.rotation_degrees,
        translate=[each * SIDE for each in draw.translation_fraction],
        scale=draw.scale,
        shear=[0.0, 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )
    x = tv.adjust_contrast(tv.adjust_brightness(x, draw.brightness), draw.contrast)
    x = tv.gaussian_blur(x, [23, 23], [draw.blur_sigma_px, draw.blur_sigma_px])
    normalised: Tensor = tv.normalize(x, [0.4], [0.25])
    return normalised


def transform(config: AugmentationConfig) -> DeviceTransform:
    return DeviceTransform(config, image_size_px=SIDE, pixel_mean=0.4, pixel_std=0.25)


def test_the_whole_chain_is_torchvisions_chain_in_lovts_order() -> None:
    config = AugmentationConfig()
    images, host = training_batch(config)
    ours = transform(config)(host, CPU, train=True).images
    for i, image in enumerate(images):
        draw = SampleDraws(seed=1, epoch=0, position=i).augmentation(config, width=150, height=130)
        # In units of the standard deviation: 2e-4 is a hundredth of a grey level.
        torch.testing.assert_close(ours[i], torchvision_chain(image, draw), atol=2e-4, rtol=0)


def test_the_chain_has_the_same_bits_for_any_number_of_threads() -> None:
    config = AugmentationConfig()
    _, host = training_batch(config)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(transform(config)(host, CPU, train=True).images)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_autocast_and_gradients_do_not_reach_the_augmentation() -> None:
    config = AugmentationConfig()
    _, host = training_batch(config, count=3)
    expected = transform(config)(host, CPU, train=True).images
    with torch.autocast("cpu", dtype=torch.bfloat16):
        images = transform(config)(host, CPU, train=True).images
    assert images.dtype == torch.float32
    assert torch.equal(images, expected)
    assert not images.requires_grad


def test_evaluation_pads_to_a_centred_square_and_resizes() -> None:
    images = textured(2, 130, 61), textured(2, 50, 141)
    views = [view(image, None) for pair in images for image in pair]
    ours = transform(AugmentationConfig())(host_batch(views), CPU, train=False).images
    for i, image in enumerate([*images[0], *images[1]]):
        x = (image[None] * 255).round() / 255
        height, width = x.shape[1:]
        side = max(height, width)
        left, top = (side - width) // 2, (side - height) // 2
        x = tv.pad(x, [left, top, side - width - left, side - height - top])
        theirs = tv.normalize(tv.resize(x, [SIDE, SIDE], antialias=True), [0.4], [0.25])
        torch.testing.assert_close(ours[i], theirs, atol=1e-4, rtol=0)


def test_stored_positions_map_to_where_evaluation_shows_them() -> None:
    width, height = 61, 130
    image = torch.zeros(height, width)
    image[60:80, 20:40] = 1
    batch = host_batch([view(image, None)])
    shown = DeviceTransform(AugmentationConfig(), image_size_px=65, pixel_mean=0, pixel_std=1)(
        batch, CPU, train=False
    ).images[0, 0]
    scale, offset_x, offset_y = stored_to_model_scale(width, height, 65)
    assert scale == 0.5
    rows, columns = (shown > 0.5).nonzero().unbind(1)
    assert int(rows.min()) == round(60 * scale + offset_y)
    assert int(rows.max()) + 1 == round(80 * scale + offset_y)
    assert int(columns.min()) == round(20 * scale + offset_x)
    assert int(columns.max()) + 1 == round(40 * scale + offset_x)


# A sample that is drawn mirrored, so that switching the flip off shows.
FLIPPED = 1

SWITCHES = {
    "crop": "none",
    "horizontal_flip": False,
    "affine": False,
    "brightness_contrast": False,
    "gaussian_blur": False,
}


def test_with_every_operation_off_training_sees_what_evaluation_sees() -> None:
    off = AugmentationConfig.model_validate(SWITCHES)
    images, host = training_batch(off, count=3)
    evaluation = host_batch([view(image, None) for image in images])
    trained = transform(off)(host, CPU, train=True).images
    assert torch.equal(trained, transform(off)(evaluation, CPU, train=False).images)


@pytest.mark.parametrize("switch", SWITCHES)
def test_switching_one_operation_off_leaves_the_draws_of_the_others(switch: str) -> None:
    def draw(config: AugmentationConfig) -> AugmentationDraw:
        return SampleDraws(seed=0, epoch=0, position=FLIPPED).augmentation(
            config, width=150, height=130
        )

    whole, without = (
        draw(AugmentationConfig()),
        draw(AugmentationConfig.model_validate({switch: SWITCHES[switch]})),
    )
    names = set(AugmentationDraw.__dataclass_fields__)
    changed = {name for name in names if getattr(whole, name) != getattr(without, name)}
    assert (
        changed
        == {
            "crop": {"window"},
            "horizontal_flip": {"flip"},
            "affine": {"rotation_degrees", "translation_fraction", "scale"},
            "brightness_contrast": {"brightness", "contrast"},
            "gaussian_blur": {"blur_sigma_px"},
        }[switch]
    )


def test_draws_fill_lovts_ranges() -> None:
    config = AugmentationConfig()
    draws = [
        SampleDraws(seed=0, epoch=3, position=i).augmentation(config, width=320, height=260)
        for i in range(2000)
    ]
    areas = [d.window.width * d.window.height / (320 * 260) for d in draws]
    ratios = [d.window.width / d.window.height for d in draws]
    assert all(0 <= d.window.left <= 320 - d.window.width for d in draws)
    assert all(0 <= d.window.top <= 260 - d.window.height for d in draws)
    assert 0.45 < np.mean([d.flip for d in draws]) < 0.55
    for values, low, high in (
        (areas, 0.6, 1.0),
        (ratios, 3 / 4, 4 / 3),
        ([d.rotation_degrees for d in draws], -20, 20),
        ([d.translation_fraction[0] for d in draws], -0.1, 0.1),
        ([d.translation_fraction[1] for d in draws], -0.1, 0.1),
        ([d.scale for d in draws], 0.95, 1.05),
        ([d.brightness for d in draws], 0.6, 1.4),
        ([d.contrast for d in draws], 0.6, 1.4),
        ([d.blur_sigma_px for d in draws], 0.1, 3.0),
    ):
        # Sides are whole pixels, which moves area and ratio by up to half a per cent.
        assert low * 0.995 - 1e-9 <= min(values) or low < 0
        assert min(values) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < max(values) < high * 1.005


def test_the_default_draws_are_those_of_the_first_release() -> None:
    """Runs go on as they began: no option that is not asked for may move a draw."""
    recorded = hashlib.sha256()
    for position in range(50):
        draws = SampleDraws(seed=12345, epoch=position % 3, position=position)
        image = draws.choose([0, 2, 3])
        draw = draws.augmentation(AugmentationConfig(), width=320, height=200 + position)
        swapped = draws.swap_sentences(("a", "b", "c", "d"), 0.4)
        window, flip, angle, shift, *others = astuple(draw)
        recorded.update(repr((image, (window, flip, angle, *shift, *others), swapped)).encode())
    assert recorded.hexdigest()[:16] == "24dbe5efd2c9b511"


def test_a_crop_that_never_fits_falls_back_to_the_centre() -> None:
    config = AugmentationConfig(crop_area_fraction=(1.0, 1.0), crop_aspect_ratio=(1.0, 1.0))
    draw = SampleDraws(seed=0, epoch=0, position=0).augmentation(config, width=300, height=100)
    assert (draw.window.left, draw.window.width, draw.window.height) == (100, 100, 100)


def test_swaps_permute_sentences_a_geometric_number_of_times() -> None:
    sentences = ("a", "b", "c", "d")
    swapped = [
        SampleDraws(seed=0, epoch=0, position=i).swap_sentences(sentences, 0.4) for i in range(2000)
    ]
    assert all(sorted(each) == list(sentences) for each in swapped)
    # No swap happens with p = 0.4; two swaps undo each other with p = 0.4 * 0.6^2 / 6.
    assert 0.38 < np.mean([each == sentences for each in swapped]) < 0.47
    alone = SampleDraws(seed=0, epoch=0, position=0).swap_sentences(("a",), 0.4)
    assert alone == ("a",)

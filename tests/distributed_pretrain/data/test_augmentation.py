"""Batched augmentation against torchvision's, image by image."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from distributed_pretrain.data.augmentation import DeviceTransform
from distributed_pretrain.data.augmentation_parameters import (
    AugmentationDraw,
    SampleDraws,
    square_window,
    stored_to_model_scale,
)
from distributed_pretrain.data.host_batch import HostBatch
from distributed_pretrain.data.sample import LoadedView
from distributed_pretrain.data.settings import AugmentationConfig
from tests.distributed_pretrain.data.textures import SIDE, textured
from tests.distributed_pretrain.phantom_batches import host_batch

CPU = torch.device("cpu")


def view(image: Tensor, draw: AugmentationDraw | None) -> LoadedView:
    pixels = (image * 255).round().to(torch.uint8).numpy()
    window = draw.window if draw else square_window(pixels.shape[1], pixels.shape[0])
    return LoadedView.cut(pixels, window, draw)


def training_batch(config: AugmentationConfig, count: int = 20) -> tuple[Tensor, HostBatch]:
    images = textured(count, 130, 150, seed=4)
    draws = [
        SampleDraws.of(seed=1, epoch=0, position=i).augmentation(config, width=150, height=130)
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
    ours = transform(config)(host, CPU).images
    for i, image in enumerate(images):
        draw = SampleDraws.of(seed=1, epoch=0, position=i).augmentation(
            config, width=150, height=130
        )
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
            results.append(transform(config)(host, CPU).images)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_autocast_and_gradients_do_not_reach_the_augmentation() -> None:
    config = AugmentationConfig()
    _, host = training_batch(config, count=3)
    expected = transform(config)(host, CPU).images
    with torch.autocast("cpu", dtype=torch.bfloat16):
        images = transform(config)(host, CPU).images
    assert images.dtype == torch.float32
    assert torch.equal(images, expected)
    assert not images.requires_grad


def test_evaluation_pads_to_a_centred_square_and_resizes() -> None:
    images = textured(2, 130, 61), textured(2, 50, 141)
    views = [view(image, None) for pair in images for image in pair]
    ours = transform(AugmentationConfig())(host_batch(views), CPU).images
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
        batch, CPU
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
    trained = transform(off)(host, CPU).images
    assert torch.equal(trained, transform(off)(evaluation, CPU).images)


@pytest.mark.parametrize("switch", SWITCHES)
def test_switching_one_operation_off_leaves_the_draws_of_the_others(switch: str) -> None:
    def draw(config: AugmentationConfig) -> AugmentationDraw:
        return SampleDraws.of(seed=0, epoch=0, position=FLIPPED).augmentation(
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

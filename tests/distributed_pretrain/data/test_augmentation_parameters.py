"""What is drawn for a sample: ranges, and that nothing moves a draw."""

import hashlib
from dataclasses import astuple

import numpy as np

from distributed_pretrain.data.augmentation_parameters import SampleDraws
from distributed_pretrain.data.settings import AugmentationConfig


def test_draws_fill_lovts_ranges() -> None:
    config = AugmentationConfig()
    draws = [
        SampleDraws.of(seed=0, epoch=3, position=i).augmentation(config, width=320, height=260)
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
        draws = SampleDraws.of(seed=12345, epoch=position % 3, position=position)
        image = draws.choose([0, 2, 3])
        draw = draws.augmentation(AugmentationConfig(), width=320, height=200 + position)
        swapped = draws.swap_sentences(("a", "b", "c", "d"), 0.4)
        window, flip, angle, shift, *others = astuple(draw)
        recorded.update(repr((image, (window, flip, angle, *shift, *others), swapped)).encode())
    assert recorded.hexdigest()[:16] == "24dbe5efd2c9b511"


def test_a_crop_that_never_fits_falls_back_to_the_centre() -> None:
    config = AugmentationConfig(crop_area_fraction=(1.0, 1.0), crop_aspect_ratio=(1.0, 1.0))
    draw = SampleDraws.of(seed=0, epoch=0, position=0).augmentation(config, width=300, height=100)
    assert (draw.window.left, draw.window.width, draw.window.height) == (100, 100, 100)


def test_swaps_permute_sentences_a_geometric_number_of_times() -> None:
    sentences = ("a", "b", "c", "d")
    swapped = [
        SampleDraws.of(seed=0, epoch=0, position=i).swap_sentences(sentences, 0.4)
        for i in range(2000)
    ]
    assert all(sorted(each) == list(sentences) for each in swapped)
    # No swap happens with p = 0.4; two swaps undo each other with p = 0.4 * 0.6^2 / 6.
    assert 0.38 < np.mean([each == sentences for each in swapped]) < 0.47
    alone = SampleDraws.of(seed=0, epoch=0, position=0).swap_sentences(("a",), 0.4)
    assert alone == ("a",)

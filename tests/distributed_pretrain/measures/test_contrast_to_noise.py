"""How well a heat map meets boxes: contrast to noise, mean IoU, and the pointing game."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distributed_pretrain.measures.heat_maps import contrast_to_noise, mean_iou, pointing_hits


def _naive_cnr(heat: Tensor, inside: Tensor, valid: Tensor) -> float:
    parts: dict[bool, list[float]] = {True: [], False: []}
    for row in range(heat.shape[0]):
        for column in range(heat.shape[1]):
            if valid[row, column]:
                parts[bool(inside[row, column])].append(float(heat[row, column]))
    means = {side: sum(values) / len(values) for side, values in parts.items()}
    variances = {
        side: sum((value - means[side]) ** 2 for value in values) / len(values)
        for side, values in parts.items()
    }
    return float((means[True] - means[False]) / (variances[True] + variances[False]) ** 0.5)


def _random_heat(phrases: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    heat = torch.randn(phrases, 9, 11, generator=generator, dtype=torch.float64)
    inside = torch.rand(phrases, 9, 11, generator=generator) < 0.3
    valid = torch.rand(phrases, 9, 11, generator=generator) < 0.8
    return heat, inside, valid


def test_the_contrast_to_noise_equals_a_naive_loop() -> None:
    heat, inside, valid = _random_heat(5)
    expected = [_naive_cnr(*each) for each in zip(heat, inside, valid, strict=True)]
    assert contrast_to_noise(heat, inside, valid).tolist() == pytest.approx(expected, abs=1e-12)


def test_the_contrast_to_noise_is_signed() -> None:
    heat, inside, valid = _random_heat(3)
    torch.testing.assert_close(
        contrast_to_noise(-heat, inside, valid), -contrast_to_noise(heat, inside, valid)
    )
    lit = heat + 5 * inside
    assert (contrast_to_noise(lit, inside, valid) > 2).all()


def test_gain_and_offset_do_not_change_the_contrast_to_noise() -> None:
    heat, inside, valid = _random_heat(3)
    torch.testing.assert_close(
        contrast_to_noise(0.01 * heat + 7, inside, valid), contrast_to_noise(heat, inside, valid)
    )


def test_padding_outside_the_image_reaches_neither_figure() -> None:
    heat, inside, valid = _random_heat(3)
    spoiled = heat.masked_fill(~valid, 1e6)
    assert torch.equal(
        contrast_to_noise(spoiled, inside, valid), contrast_to_noise(heat, inside, valid)
    )
    assert pointing_hits(spoiled, valid, valid).all()


def test_flat_heat_and_boxes_of_nothing_or_everything_score_zero() -> None:
    heat, inside, valid = _random_heat(3)
    heat[0] = 0.25
    inside[1] = False
    inside[2] = True
    assert contrast_to_noise(heat, inside, valid).tolist() == [0.0, 0.0, 0.0]


def test_a_hit_is_the_hottest_pixel_inside_a_box() -> None:
    heat = torch.zeros(2, 4, 4)
    heat[:, 1, 2] = 1
    inside = torch.zeros(2, 4, 4, dtype=torch.bool)
    inside[0, 1, 1:] = True
    inside[1, 2, 1:] = True
    assert pointing_hits(heat, inside, torch.ones_like(inside)).tolist() == [1, 0]


def test_the_mean_iou_is_over_thresholds_of_the_heat_as_it_is() -> None:
    heat, inside, valid = _random_heat(4)
    for phrase in range(4):
        ious = []
        for threshold in (0.1, 0.2, 0.3, 0.4, 0.5):
            hot = (heat[phrase] > threshold) & valid[phrase]
            boxes = inside[phrase] & valid[phrase]
            ious.append(float((hot & boxes).sum() / (hot | boxes).sum()))
        assert mean_iou(heat, inside, valid)[phrase].item() == pytest.approx(sum(ious) / 5)


def test_the_mean_iou_is_one_where_the_heat_is_the_box_and_zero_where_neither_is() -> None:
    _, inside, valid = _random_heat(2)
    inside[1] = False
    assert mean_iou(inside.float(), inside, valid).tolist() == [1.0, 0.0]


def test_of_pixels_that_are_as_hot_the_share_inside_counts() -> None:
    heat = torch.zeros(2, 4, 4)
    heat[0, 0] = 1
    inside = torch.zeros(2, 4, 4, dtype=torch.bool)
    inside[:, :2, 1] = True
    valid = torch.ones_like(inside)
    assert pointing_hits(heat, inside, valid).tolist() == [1 / 4, 2 / 16]
    valid[:, :, 2:] = False
    assert pointing_hits(heat, inside, valid).tolist() == [1 / 2, 2 / 8]

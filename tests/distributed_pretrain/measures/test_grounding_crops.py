from __future__ import annotations

import pytest
import torch

from data_shards.records.study import ImageRecord
from distributed_pretrain.data.geometry import ModelSquare
from distributed_pretrain.measures.base import Context
from distributed_pretrain.measures.grounding_crops import (
    SMALLEST_AREA,
    CroppedGrounding,
    cropped_images,
    window_of,
)
from tests.distributed_pretrain.measures.test_grounding import (
    BRIGHT,
    DARK,
    SIZE_PX,
    BrightnessMethod,
    _batch,
    _box,
    _encode,
)


def test_a_studys_window_is_its_own_and_stays_inside() -> None:
    windows = [window_of(f"study-{i}") for i in range(200)]
    assert len(set(windows)) == 200
    assert window_of("study-7") == windows[7]
    for left, top, side in windows:
        assert SMALLEST_AREA <= side**2 <= 1
        assert min(left, top) >= 0
        assert max(left, top) + side <= 1 + 1e-9
    assert min(side for _, _, side in windows) < 0.68


def test_pixels_and_boxes_are_cut_alike() -> None:
    """What is lit in the cropped image is what its square says is inside the box."""
    image = torch.zeros(1, 1, 64, 64)
    image[..., 20:44, 30:50] = 1
    window = (0.25, 0.125, 0.75)
    cropped = cropped_images(image, [window])[0, 0] > 0.5
    square = ModelSquare(ImageRecord("a", "PA", "a", 64, 64, 64, 64), 64, window=window)
    box = _box(30, 20, 20, 24)
    assert (cropped != square.inside([box])).float().mean() < 0.01
    whole = cropped_images(image, [(0.0, 0.0, 1.0)])
    torch.testing.assert_close(whole, image)


def test_phrases_count_where_half_of_their_box_is_inside() -> None:
    method = BrightnessMethod()
    context = Context(objective=method, device=torch.device("cpu"), encode=_encode)
    measure = CroppedGrounding(context)
    left, top, _ = (SIZE_PX * each for each in window_of("study-0"))
    inside = _box(left + 2, top + 2, 6, 6, BRIGHT)
    cut = _box(left - 4, top + 2, 6, 6, DARK)  # a third of it
    batch = _batch((inside, cut))
    measure.update(batch, method(batch))
    figures = measure.compute()
    assert figures["grounding_cropped_phrases"] == 1
    # Also of the phrase that is not counted.
    assert figures["grounding_cropped_box_shown"] == pytest.approx((1 + 1 / 3) / 2)
    assert all(name.startswith("grounding_cropped_") for name in figures)
    assert set(figures) <= {metric.name for metric in measure.metrics}

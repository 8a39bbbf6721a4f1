"""The linear protocol: Dice loss, pooled Dice, and a head that finds what features show."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from data_shards.errors import InputError
from data_shards.records.study import ImageRecord, MaskRecord, Report, StudyRecord
from distributed_pretrain.measures.base import Context
from distributed_pretrain.measures.linear import LinearSet
from distributed_pretrain.measures.linear_dice import (
    LinearDice,
    linear_dice,
    pooled_dice,
)
from tests.tiny.methods import tiny_lovt

GRID, SIZE_PX, CHANNELS = 8, 32, 6


def _shapes(samples: int, *, seed: int, contrast: float) -> LinearSet:
    """Two classes of axis-parallel blocks; channels 2 and 4 of the features show them.

    `contrast` is that of the blocks against unit noise; 0 hides them.
    """
    generator = torch.Generator().manual_seed(seed)
    cells = torch.zeros(samples, 2, GRID, GRID)
    for sample in range(samples):
        for klass in range(2):
            row, column = torch.randint(0, GRID - 3, (2,), generator=generator).tolist()
            cells[sample, klass, row : row + 3, column : column + 4] = 1
    features = torch.randn(samples, CHANNELS, GRID, GRID, generator=generator)
    features[:, 2] += contrast * cells[:, 0]
    features[:, 4] += contrast * cells[:, 1]
    masks = cells.repeat_interleave(SIZE_PX // GRID, 2).repeat_interleave(SIZE_PX // GRID, 3) > 0
    return LinearSet(features, masks)


def test_dice_pools_the_pixels_of_all_samples() -> None:
    masks = torch.zeros(2, 1, 1, 10, dtype=torch.bool)
    masks[0, 0, 0, :8] = True
    masks[1, 0, 0, :2] = True
    predicted = torch.zeros_like(masks)
    predicted[0, 0, 0, :8] = True
    # Per sample 1 and 0, whose mean is 0.5; pooled 2 * 8 / (8 + 10).
    assert pooled_dice(predicted, masks).tolist() == pytest.approx([16 / 18])


def test_dice_keeps_the_classes_apart() -> None:
    masks = torch.zeros(1, 2, 2, 2, dtype=torch.bool)
    masks[0, 0] = True
    assert pooled_dice(masks.flip(1), masks).tolist() == [0.0, 0.0]
    assert pooled_dice(masks, masks).tolist() == [1.0, 1.0]


def test_a_linear_head_finds_what_the_features_show() -> None:
    visible = linear_dice(_shapes(80, seed=1, contrast=6), _shapes(30, seed=2, contrast=6), seed=0)
    hidden = linear_dice(_shapes(80, seed=1, contrast=0), _shapes(30, seed=2, contrast=0), seed=0)
    # Bilinear upsampling rounds the corners of the blocks, so 1 is out of reach.
    assert (visible > 0.85).all(), visible
    assert (hidden < 0.5).all(), hidden


def test_scale_and_offset_of_the_features_matter_little() -> None:
    training, test = (_shapes(60, seed=seed, contrast=4) for seed in (1, 2))

    def moved(data: LinearSet) -> LinearSet:
        gains = torch.logspace(-3, 3, CHANNELS)[None, :, None, None]
        return LinearSet(data.features * gains + 5 * gains, data.targets)

    plain = linear_dice(training, test, seed=0)
    torch.testing.assert_close(
        linear_dice(moved(training), moved(test), seed=0), plain, atol=0.01, rtol=0
    )


@pytest.mark.parametrize("learning_rates", [(1e-9, 1e-1), (1e-1, 1e-9)])
def test_the_learning_rate_is_the_one_that_does_best_on_held_out_samples(
    learning_rates: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    training, test = (_shapes(60, seed=seed, contrast=6) for seed in (1, 2))

    def measured(*rates: float) -> Tensor:
        monkeypatch.setattr("distributed_pretrain.measures.linear_dice.LEARNING_RATES", rates)
        return linear_dice(training, test, seed=0, steps=20)

    useful, useless = measured(1e-1), measured(1e-9)
    assert useful.mean() > useless.mean() + 0.2
    assert torch.equal(measured(*learning_rates), useful)


def test_the_same_seed_gives_the_same_dice() -> None:
    training, test = (_shapes(40, seed=seed, contrast=2) for seed in (1, 2))

    def measured(seed: int) -> Tensor:
        torch.rand(1)  # the global generator must not matter
        return linear_dice(training, test, seed=seed, steps=5)

    assert torch.equal(measured(7), measured(7))
    assert not torch.equal(measured(7), measured(8))


def test_the_features_are_left_as_they_are() -> None:
    training, test = (_shapes(20, seed=seed, contrast=2) for seed in (1, 2))
    before = training.features.clone(), test.features.clone()
    linear_dice(training, test, seed=0, steps=2)
    assert torch.equal(training.features, before[0])
    assert torch.equal(test.features, before[1])


@pytest.mark.parametrize("payload", [b"", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_a_mask_that_cannot_be_decoded_is_named(payload: bytes) -> None:
    record = StudyRecord(
        key="k",
        patient_id="p",
        study_id="s",
        split="test",
        source="phantom",
        licence="",
        images=(ImageRecord("i", "PA", "image0.jpg", 40, 40, 40, 40),),
        report=Report(raw="", sections={}, sentences={}),
        labels={},
        boxes=(),
        masks=(MaskRecord(0, "Edema", "mask_Edema.png"),),
    )
    context = Context(objective=tiny_lovt(), device=torch.device("cpu"), read=lambda *_: payload)
    measure = LinearDice(context)
    measure.size_px = 32
    with pytest.raises(InputError, match=r"k.mask_Edema.png: cannot be decoded .*verify"):
        measure.known_of(record)

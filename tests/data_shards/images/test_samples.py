"""The rule for depth and photometric meaning, by a loop over single samples."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from data_shards.images.refusals import RefusedError
from data_shards.images.samples import SampleMeaning, bits_in_use, eight_bits


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 10, 12, 14, 15, 16])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_the_span_of_the_declared_bits_becomes_all_grey_levels(
    bits: int, white_is_zero: bool
) -> None:
    high = 2**bits - 1
    samples = np.unique(np.linspace(0, high, 99).astype(np.int32))
    grey, clipped = eight_bits(samples, SampleMeaning(bits, white_is_zero=white_is_zero))
    assert clipped == 0
    for sample, value in zip(samples.tolist(), grey.tolist(), strict=True):
        share = (high - sample if white_is_zero else sample) / high
        assert abs(value - 255 * share) <= 0.5
    assert sorted(grey[[0, -1]].tolist()) == [0, 255]


def test_eight_bits_stay_as_they_are() -> None:
    samples = np.arange(256, dtype=np.uint8)
    assert np.array_equal(eight_bits(samples, SampleMeaning(8)).pixels, samples)


def test_bits_in_use_are_those_of_the_outermost_sample() -> None:
    wide = SampleMeaning(16)
    for highest, bits in ((0, 0), (1, 1), (255, 8), (256, 9), (4095, 12), (4096, 13), (65535, 16)):
        assert bits_in_use(np.array([0, highest]), wide).bits == bits


@pytest.mark.parametrize("white_is_zero", [False, True])
def test_a_narrower_depth_spans_what_is_in_use(white_is_zero: bool) -> None:
    samples = np.array([0, 819, 1638, 3276, 4095], np.uint16)
    declared = SampleMeaning(12, white_is_zero=white_is_zero)
    wide = SampleMeaning(16, white_is_zero=white_is_zero)
    as_declared = eight_bits(samples, declared).pixels
    assert np.array_equal(eight_bits(samples, wide, 12).pixels, as_declared)
    assert np.array_equal(eight_bits(samples, wide, "in_use").pixels, as_declared)
    # A file of fewer bits keeps its own.
    assert np.array_equal(eight_bits(samples, declared, 14).pixels, as_declared)


def test_bits_inverted_after_they_were_widened_are_seen_as_well() -> None:
    upright = np.array([0, 819, 3276, 4095], np.uint16)
    meaning = SampleMeaning(16, white_is_zero=True)
    expected = eight_bits(upright, SampleMeaning(12)).pixels
    for inverted in (4095 - upright, 65535 - upright):
        assert bits_in_use(inverted, meaning).bits == 12
        assert np.array_equal(eight_bits(inverted, meaning, 12).pixels, expected)
        assert np.array_equal(eight_bits(inverted, meaning, "in_use").pixels, expected)


def test_samples_beyond_the_depth_that_was_set_are_refused() -> None:
    with pytest.raises(RefusedError) as refused:
        eight_bits(np.array([0, 4096]), SampleMeaning(16), 12)
    assert refused.value.reason == "samples of more than 12 bits"
    assert "source.bits" in refused.value.remedy
    assert refused.value.detail == "13 bits are in use"


def with_marker(picture: list[int], marker: int, size: int) -> NDArray[Any]:
    """1,000 samples of a picture, `size` of them overwritten by a marker."""
    samples: NDArray[Any] = np.resize(np.array(picture, np.uint16), 1000)
    samples[:size] = marker
    return samples


@pytest.mark.parametrize(
    ("picture", "marker", "meaning"),
    [
        ([0, 800, 4095], 65535, SampleMeaning(16)),
        ([0, 800, 4095], 40000, SampleMeaning(16)),
        ([4095, 3295, 0], 65535, SampleMeaning(16, white_is_zero=True)),
        ([65535, 64735, 61440], 0, SampleMeaning(16, white_is_zero=True)),
    ],
)
def test_a_marker_of_a_small_share_is_clipped_and_the_picture_keeps_its_bits(
    picture: list[int], marker: int, meaning: SampleMeaning
) -> None:
    samples = with_marker(picture, marker, 20)
    assert bits_in_use(samples, meaning) == (12, 0.02)
    for depth in (12, "in_use"):
        grey, clipped = eight_bits(samples, meaning, depth)
        assert clipped == 0.02
        assert np.unique(grey[20:]).tolist() == [0, 50, 255]
        assert set(grey[:20].tolist()) <= {0, 255}
    assert eight_bits(samples, meaning).clipped == 0


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_a_frame_or_margin_of_one_value_may_be_larger(share: float) -> None:
    samples = with_marker([0, 800, 4095], 65535, int(1000 * share))
    assert bits_in_use(samples, SampleMeaning(16)) == (12, share)
    grey, clipped = eight_bits(samples, SampleMeaning(16), 12)
    assert clipped == share
    assert np.unique(grey[: int(1000 * share)]).tolist() == [255]


@pytest.mark.parametrize(("size", "other"), [(21, 65000), (201, 65535)])
def test_more_than_a_marker_is_picture(size: int, other: int) -> None:
    samples = with_marker([0, 800, 4095], 65535, size)
    samples[0] = other
    assert bits_in_use(samples, SampleMeaning(16)) == (16, 0)
    with pytest.raises(RefusedError, match="samples of more than 12 bits"):
        eight_bits(samples, SampleMeaning(16), 12)


def test_few_bright_samples_that_one_bit_less_would_cut_are_picture() -> None:
    for highest, used in ((8191, (13, 0)), (16383, (12, 0.001))):
        samples = with_marker([0, 800, 4095], highest, 1)
        assert bits_in_use(samples, SampleMeaning(16)) == used
        assert eight_bits(samples, SampleMeaning(16), "in_use").clipped == used[1]


def test_a_marker_on_black_leaves_no_bits() -> None:
    samples = with_marker([0], 65535, 10)
    assert bits_in_use(samples, SampleMeaning(16)) == (0, 0.01)
    assert np.unique(eight_bits(samples, SampleMeaning(16), "in_use").pixels).tolist() == [0, 255]

"""The rule for depth, sign and photometric meaning, by a loop over single samples."""

import numpy as np
import pytest

from data_shards.images.refusals import RefusedError
from data_shards.images.samples import SampleMeaning, bits_in_use, eight_bits


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 10, 12, 14, 15, 16])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_the_span_of_the_declared_bits_becomes_all_grey_levels(
    bits: int, signed: bool, white_is_zero: bool
) -> None:
    low = -(2 ** (bits - 1)) if signed else 0
    high = low + 2**bits - 1
    samples = np.unique(np.linspace(low, high, 99).astype(np.int32))
    grey = eight_bits(samples, SampleMeaning(bits, signed, white_is_zero))
    for sample, value in zip(samples.tolist(), grey.tolist(), strict=True):
        share = (high - sample if white_is_zero else sample - low) / (high - low)
        assert abs(value - 255 * share) <= 0.5
    assert sorted(grey[[0, -1]].tolist()) == [0, 255]


def test_eight_bits_stay_as_they_are() -> None:
    samples = np.arange(256, dtype=np.uint8)
    assert np.array_equal(eight_bits(samples, SampleMeaning(8)), samples)


def test_bits_in_use_are_those_of_the_outermost_sample() -> None:
    wide = SampleMeaning(16)
    for highest, bits in ((0, 0), (1, 1), (255, 8), (256, 9), (4095, 12), (4096, 13), (65535, 16)):
        assert bits_in_use(np.array([0, highest]), wide) == bits
    signed = SampleMeaning(16, signed=True)
    for outermost, bits in ((0, 1), (127, 8), (-128, 8), (-129, 9), (2047, 12), (-32768, 16)):
        assert bits_in_use(np.array([0, outermost]), signed) == bits


@pytest.mark.parametrize("white_is_zero", [False, True])
def test_a_narrower_depth_spans_what_is_in_use(white_is_zero: bool) -> None:
    samples = np.array([0, 819, 1638, 3276, 4095], np.uint16)
    declared = SampleMeaning(12, white_is_zero=white_is_zero)
    wide = SampleMeaning(16, white_is_zero=white_is_zero)
    as_declared = eight_bits(samples, declared)
    assert np.array_equal(eight_bits(samples, wide, 12), as_declared)
    assert np.array_equal(eight_bits(samples, wide, "in_use"), as_declared)
    # A file of fewer bits keeps its own.
    assert np.array_equal(eight_bits(samples, declared, 14), as_declared)


def test_bits_inverted_after_they_were_widened_are_seen_as_well() -> None:
    upright = np.array([0, 819, 3276, 4095], np.uint16)
    meaning = SampleMeaning(16, white_is_zero=True)
    expected = eight_bits(upright, SampleMeaning(12))
    for inverted in (4095 - upright, 65535 - upright):
        assert bits_in_use(inverted, meaning) == 12
        assert np.array_equal(eight_bits(inverted, meaning, 12), expected)
        assert np.array_equal(eight_bits(inverted, meaning, "in_use"), expected)


def test_samples_beyond_the_depth_that_was_set_are_refused() -> None:
    with pytest.raises(RefusedError) as refused:
        eight_bits(np.array([0, 4096]), SampleMeaning(16), 12)
    assert refused.value.reason == "samples of more than 12 bits"
    assert "source.bits" in refused.value.remedy
    assert refused.value.detail == "13 bits are in use"

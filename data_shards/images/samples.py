"""The one rule for what the numbers of an image mean: depth, and whether white is zero.

Samples of n bits span 0 to 2^n - 1: black is the low end, or the high end where white is zero.
Signed ones are shifted to that by the format that defines their span, as DICOM does, or refused. n
is what the file declares; `Depth` narrows it where a file declares more than it uses, as a 16-bit
file does that holds the 12 bits of a detector. Where white is zero, such bits may have been
inverted before or after they were widened: both are seen.

What was burnt in at full white is no picture, be it letters or, of one value, a frame or a margin:
the bits in use are those of all samples but a share of `MOST_OUTSIDE`, or of `MOST_OF_ONE_VALUE`,
if that saves `FEWEST_SAVED` bits or more. What lies outside a narrower depth becomes black or
white, and is counted; more than these shares is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from data_shards.images.refusals import RefusedError

# Bits that samples use at most; or those that each image's own samples need; or those declared.
Depth: TypeAlias = int | Literal["in_use"] | None
# Markers and scales cover less of a radiograph. One bit too dark for all but this share may well be
# the picture of a bright thing.
MOST_OUTSIDE = 0.02
MOST_OF_ONE_VALUE = 0.2
FEWEST_SAVED = 2


@dataclass(frozen=True, slots=True)
class SampleMeaning:
    """What a file declares about its samples. What can be stored has 16 bits at most, unsigned."""

    bits: int
    signed: bool = False
    white_is_zero: bool = False


def refuse_unknown_span(meaning: SampleMeaning) -> None:
    """Raise RefusedError for samples of which a file cannot tell where black and white are.

    Signed ones of a TIFF hold whatever a script left there.
    """
    if meaning.bits > 16:
        raise RefusedError(f"an image of {meaning.bits}-bit samples", "convert it to 8 or 16 bits")
    if meaning.signed:
        raise RefusedError("signed samples", "shift and scale them to 0 to 65,535")


class BitsInUse(NamedTuple):
    """The bits that hold a picture, and the share of samples outside them."""

    bits: int
    outside: float = 0.0


class Grey(NamedTuple):
    """8-bit grey, 0 black, and the share of samples that lay outside the span and were clipped."""

    pixels: NDArray[np.uint8]
    clipped: float


def bits_in_use(samples: NDArray[np.integer[Any]], meaning: SampleMeaning) -> BitsInUse:
    """The fewest bits that hold every sample, or all but a marker; 0 where all are zero."""
    return min(_fewest_bits(each) for each in _distances(samples, meaning))


def eight_bits(
    samples: NDArray[np.integer[Any]], meaning: SampleMeaning, depth: Depth = None
) -> Grey:
    """`samples` of any shape as grey: their span onto 0 to 255, rounded.

    Raises RefusedError where more samples than a marker's lie outside the span that `depth` names.
    """
    bits = meaning.bits
    if depth == "in_use":
        bits = min(bits, max(bits_in_use(samples, meaning).bits, 1))
    elif depth is not None:
        bits = min(bits, depth)
    if bits == 8 and samples.dtype == np.uint8:
        # What all below comes to for these, which most files hold.
        grey = samples.astype(np.uint8, copy=False)
        return Grey(255 - grey if meaning.white_is_zero else grey, 0.0)
    top = 2**bits - 1
    outside = [share_outside(each, top) for each in _distances(samples, meaning)]
    clipped = min(outside)
    if clipped > MOST_OF_ONE_VALUE:
        raise RefusedError(
            f"samples of more than {bits} bits",
            "correct source.bits, or set source.bits=in_use",
            f"{bits_in_use(samples, meaning).bits} bits are in use",
        )
    wide = samples.astype(np.int32)
    if clipped < outside[0]:
        # Inverted after they were widened.
        wide -= 2**meaning.bits - 1 - top
    # 65,535 x 255 fits.
    wide = np.clip(wide, 0, top).astype(np.uint32)
    span = np.uint32(top)
    if meaning.white_is_zero:
        wide = span - wide
    return Grey(((wide * 255 + span // 2) // span).astype(np.uint8), clipped)


def _distances(
    samples: NDArray[np.integer[Any]], meaning: SampleMeaning
) -> list[NDArray[np.integer[Any]]]:
    """How far samples lie from black, by each way to see them."""
    return [samples, 2**meaning.bits - 1 - samples] if meaning.white_is_zero else [samples]


def share_outside(samples: NDArray[np.integer[Any]], top: int) -> float:
    """The share below 0 or above `top`, 1 where there are more than of what is no picture."""
    outside = samples > top
    if samples.dtype.kind == "i":
        outside |= samples < 0
    share = np.count_nonzero(outside) / samples.size
    if share <= MOST_OUTSIDE:
        return share
    if share > MOST_OF_ONE_VALUE:
        return 1.0
    values = samples[outside]
    return share if (values == values[0]).all() else 1.0


def _fewest_bits(distances: NDArray[np.integer[Any]]) -> BitsInUse:
    every = picture = int(distances.max()).bit_length()
    outside = 0.0
    while picture and (beyond := share_outside(distances, 2 ** (picture - 1) - 1)) < 1:
        picture, outside = picture - 1, beyond
    return BitsInUse(every) if every - picture < FEWEST_SAVED else BitsInUse(picture, outside)

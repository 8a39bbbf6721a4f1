"""The one rule for what the numbers of an image mean: depth, sign, and whether white is zero.

Unsigned samples of n bits span 0 to 2^n - 1, signed ones -2^(n-1) to 2^(n-1) - 1. Black is the low
end, or the high end where white is zero. n is what the file declares; `Depth` narrows it where a
file declares more than it uses, as a 16-bit file does that holds the 12 bits of a detector. Where
white is zero, such bits may have been inverted before or after they were widened: both are seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from data_shards.images.refusals import RefusedError

# Bits that samples use at most; or those that each image's own samples need; or those declared.
Depth: TypeAlias = int | Literal["in_use"] | None


@dataclass(frozen=True, slots=True)
class SampleMeaning:
    """What a file declares about its samples. `bits` is at most 16 for what can be stored."""

    bits: int
    signed: bool = False
    white_is_zero: bool = False


def refuse_unknown_span(meaning: SampleMeaning) -> None:
    """Raise RefusedError for samples of which a file cannot tell where black and white are.

    Signed ones of a TIFF or the like hold whatever a script left there; where a format defines
    their span, `eight_bits` takes them.
    """
    if meaning.bits > 16:
        raise RefusedError(f"an image of {meaning.bits}-bit samples", "convert it to 8 or 16 bits")
    if meaning.signed:
        raise RefusedError("signed samples", "shift and scale them to 0 to 65,535")


def bits_in_use(samples: NDArray[np.integer[Any]], meaning: SampleMeaning) -> int:
    """The fewest bits that hold every sample, the sign's included; 0 where all are zero."""
    lowest, highest = int(samples.min()), int(samples.max())
    if not meaning.signed:
        from_above = 2**meaning.bits - 1 - lowest if meaning.white_is_zero else highest
        return min(highest, from_above).bit_length()
    # -2^(n-1) needs n bits, as 2^(n-1) - 1 does.
    return max(highest.bit_length(), (-lowest - 1).bit_length() if lowest < 0 else 0) + 1


def eight_bits(
    samples: NDArray[np.integer[Any]], meaning: SampleMeaning, depth: Depth = None
) -> NDArray[np.uint8]:
    """`samples` of any shape as 8-bit grey, 0 black: their span onto 0 to 255, rounded.

    Raises RefusedError for samples outside the span that `depth` names.
    """
    used = bits_in_use(samples, meaning)
    bits = meaning.bits
    if depth == "in_use":
        bits = min(bits, max(used, 1))
    elif depth is not None:
        bits = min(bits, depth)
    if used > bits:
        raise RefusedError(
            f"samples of more than {bits} bits",
            "correct source.bits, or set source.bits=in_use",
            f"{used} bits are in use",
        )
    top = 2**bits - 1
    if meaning.signed:
        samples = samples.astype(np.int32) + 2 ** (bits - 1)
    # 65,535 x 255 fits.
    wide = samples.astype(np.uint32)
    if meaning.white_is_zero:
        wide = (top if int(wide.max()) <= top else 2**meaning.bits - 1) - wide
    scaled: NDArray[np.uint8] = ((wide * 255 + top // 2) // top).astype(np.uint8)
    return scaled

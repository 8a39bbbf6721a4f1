"""What the stored values of a DICOM are in grey, in the order of DICOM PS3.4 N.2.

Modality LUT or rescale, then VOI LUT or window, and MONOCHROME1 is inverted. Without a VOI LUT or
window the samples count as those of any file (`samples`): of as many bits as the modality LUT
gives, or of `BitsStored` ones, signed ones shifted by half of their range.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_shards.images.refusals import RefusedError, damaged, wrong_value
from data_shards.images.samples import (
    MOST_OF_ONE_VALUE,
    SampleMeaning,
    refuse_unknown_span,
    share_outside,
)

if TYPE_CHECKING:
    from pydicom import Dataset

_WINDOW_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


class Shown(NamedTuple):
    """A picture, what its samples mean, and the share of them that were clipped to come here."""

    picture: Image.Image
    meaning: SampleMeaning
    clipped: float = 0.0


def shown_grey(values: NDArray[Any], header: Dataset) -> Shown:
    """`values`, of height x width, as stored, by the transformations of their header.

    Those beyond `BitsStored` become the nearest that it holds. Raises RefusedError where they are
    more than a marker's, for more than 16 bits, and for a slope or window that can show nothing.
    """
    slope = header.get("RescaleSlope")
    if slope is not None and float(slope) == 0:
        raise wrong_value("RescaleSlope", f"{slope:g}")
    bits = int(header.get("BitsStored") or header.BitsAllocated)
    refuse_unknown_span(SampleMeaning(bits))
    first, top = 0, 2**bits - 1
    if header.get("PixelRepresentation") == 1:
        first = -(2 ** (bits - 1))
    # All is counted from the first value on, unsigned ones from zero.
    samples = values.astype(np.int32) - first if first else values
    clipped = share_outside(samples, top)
    if clipped > MOST_OF_ONE_VALUE:
        raise RefusedError(
            f"samples of more than the {bits} bits of BitsStored",
            "correct BitsStored" + (" or PixelRepresentation" if first else ""),
            f"{values.min()} to {values.max()}",
        )
    if clipped:
        samples = np.clip(samples, 0, top)
    white_is_zero = header.PhotometricInterpretation == "MONOCHROME1"
    if _has_voi(header):
        samples, bits = _windowed(first, first + top, header)[samples], 8
    elif header.get("ModalityLUTSequence"):
        samples = _by_modality(first, first + top, header)[samples]
        bits = _bits_of(header.ModalityLUTSequence)
    else:
        # A slope below zero turns black and white, as MONOCHROME1 does.
        white_is_zero ^= slope is not None and float(slope) < 0
    meaning = SampleMeaning(max(bits, 8), white_is_zero=white_is_zero)
    return Shown(_picture(samples, bits), meaning, clipped)


def _picture(samples: NDArray[Any], bits: int) -> Image.Image:
    """Unsigned samples of `bits` bits; fewer than eight are widened to those."""
    if bits < 8:
        samples = samples.astype(np.uint16) * 255 // (2**bits - 1)
    dtype = np.uint8 if bits <= 8 else np.uint16
    return Image.fromarray(np.ascontiguousarray(samples, dtype=dtype))


def _has_voi(header: Dataset) -> bool:
    """Whether there is a VOI LUT or a window; one of no width is none."""
    if header.get("VOILUTSequence"):
        return True
    center, width = header.get("WindowCenter"), header.get("WindowWidth")
    return center is not None and width is not None and not _first(width) <= 0


def _first(value: Any) -> float:
    """Of several windows that of the one that viewers open with."""
    return float(value[0] if isinstance(value, Sequence) else value)


def _set_window_function(header: Dataset) -> None:
    """As the standard spells it, LINEAR where it is not said. Raises RefusedError for no sense."""
    function = str(header.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in _WINDOW_FUNCTIONS:
        raise wrong_value("VOILUTFunction", header.VOILUTFunction)
    width = _first(header.WindowWidth)
    if function == "LINEAR" and width < 1:
        raise wrong_value("WindowWidth", f"{width:g}")
    header.VOILUTFunction = function


def _by_modality(first: int, last: int, header: Dataset) -> NDArray[Any]:
    """What each value from `first` to `last` becomes by the modality LUT or rescale."""
    from pydicom.pixels import apply_modality_lut

    every = np.arange(first, last + 1, dtype=np.int32).reshape(1, -1)
    shown: NDArray[Any] = apply_modality_lut(every, header)[0]
    return shown


def _windowed(first: int, last: int, header: Dataset) -> NDArray[np.uint8]:
    """What they become by the VOI LUT or window after that: its whole range onto 0 to 255."""
    from pydicom.pixels import apply_voi_lut

    if not header.get("VOILUTSequence"):
        _set_window_function(header)
    shown = apply_voi_lut(_by_modality(first, last, header), header).astype(np.float64)
    if not np.isfinite(shown).all():
        raise damaged("a window or rescale that is no number")
    low, high = _shown_range(first, last, header)
    scaled = (shown - low) * (255 / (high - low)) + 0.5
    levels: NDArray[np.uint8] = np.clip(scaled, 0, 255).astype(np.uint8)
    return levels


def _bits_of(lut: Sequence[Dataset]) -> int:
    """Of what a look-up table gives."""
    return int(lut[0].LUTDescriptor[2])


def _shown_range(first: int, last: int, header: Dataset) -> tuple[float, float]:
    """The lowest and highest value that the VOI transformation can give."""
    if lut := header.get("VOILUTSequence") or header.get("ModalityLUTSequence"):
        return 0.0, 2.0 ** _bits_of(lut) - 1
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    if slope is None or intercept is None:
        return float(first), float(last)
    return first * float(slope) + float(intercept), last * float(slope) + float(intercept)

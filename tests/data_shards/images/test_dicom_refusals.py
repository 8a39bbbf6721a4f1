"""DICOM: what is cut, or cannot be shown, is refused by its cause."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_shards.images.dicom import view_position
from data_shards.images.refusals import BadImageError
from tests.data_shards.images.drawn import scene
from tests.data_shards.images.drawn_dicom import (
    TWELVE,
    converted,
    dicom,
    elements,
    run_lengths,
    written,
)

COMPRESSED = run_lengths(dicom(TWELVE, bits=12))
# A text of ten bytes, a number of two, pixels.
INTERPRETATION, ROWS, PIXELS = (
    COMPRESSED.index(each) for each in (b"\x28\0\4\0CS", b"\x28\0\x10\0US", b"\xe0\x7f\x10\0OB")
)


@pytest.mark.parametrize(
    "size",
    [
        132,
        142,
        150,
        200,
        INTERPRETATION + 7,
        INTERPRETATION + 8,
        INTERPRETATION + 8 + 7,
        ROWS + 8 + 1,
        PIXELS + 10,
        PIXELS + 12,
        PIXELS + 40,
        -9,
    ],
)
def test_a_compressed_file_that_was_cut_is_told_as_such(size: int, tmp_path: Path) -> None:
    path = written(tmp_path, COMPRESSED[:size])
    with pytest.raises(BadImageError, match=r"truncated or damaged image .*: restore the file"):
        converted(path)
    assert view_position(path) == ""


BROKEN: dict[str, tuple[bytes, str]] = {
    "cut short": (dicom(scene(65535), bits=16)[:-100], "truncated or damaged image"),
    "no picture": (
        dicom(scene(), bits=8, PixelData=None),
        "a DICOM without an image .no PixelData",
    ),
    "no interpretation": (
        dicom(scene(), bits=8, PhotometricInterpretation=None),
        "a DICOM without an image .no PhotometricInterpretation",
    ),
    "several frames": (
        dicom(np.stack([scene()] * 2), bits=8, Rows=48, Columns=64, NumberOfFrames=2),
        "a file of several pages .2 frames.: split it",
    ),
    "a window of less than a value": (
        dicom(TWELVE, bits=12, WindowCenter=1, WindowWidth=0.5),
        "a DICOM with a value that cannot be meant .WindowWidth=0.5.: correct it, or pass",
    ),
    "a window function that there is not": (
        dicom(TWELVE, bits=12, WindowCenter=9, WindowWidth=9, VOILUTFunction="CUBIC"),
        "a DICOM with a value that cannot be meant .VOILUTFunction=CUBIC.: correct it, or pass",
    ),
    "a slope that makes all one value": (
        dicom(TWELVE, bits=12, RescaleSlope=0, RescaleIntercept=0),
        "a DICOM with a value that cannot be meant .RescaleSlope=0.: correct it, or pass",
    ),
    "such a slope before a window": (
        dicom(
            TWELVE, bits=12, RescaleSlope="0.0", RescaleIntercept=0, WindowCenter=9, WindowWidth=9
        ),
        "a DICOM with a value that cannot be meant .RescaleSlope=0.: correct it, or pass",
    ),
    "an interpretation that there is not": (
        dicom(scene(), bits=8, PhotometricInterpretation="GREY"),
        "a DICOM with a value that cannot be meant .PhotometricInterpretation=GREY.: correct it",
    ),
    "a window that is no number": (
        dicom(TWELVE, bits=12, WindowCenter="nan", WindowWidth=400),
        "truncated or damaged image .a window or rescale that is no number",
    ),
    "32 bits": (dicom(scene(4095).astype(np.uint32), bits=32), "an image of 32-bit samples"),
    "nothing behind the mark": (
        b"\0" * 128 + b"DICM",
        "truncated or damaged image .nothing behind its mark.",
    ),
    "a report": (
        dicom(scene(), bits=8, PixelData=None, Rows=None, Columns=None, Modality="SR"),
        "a DICOM without an image .no PixelData.: leave it out",
    ),
    "no preamble and no picture": (
        b"\x08\0\x05\0CS\x0a\0ISO_IR 100",
        "not an image, though it begins as a DICOM without its preamble ",
    ),
    "no preamble and something else": (
        b"\x08\0\x00\0\x04\0\0\0" + bytes(range(256)),
        "not an image, though it begins as a DICOM|damaged",
    ),
    "no preamble, and cut short": (
        elements("explicit")[:-100],
        "truncated or damaged image",
    ),
    "no preamble, compressed, and not said how": (
        elements("explicit", PixelData=b"\xfe\xff\x00\xe0\0\0\0\0"),
        "a compressed DICOM without a transfer syntax",
    ),
    "another picture behind the mark": (b"\0" * 128 + b"DICM\xff\xd8\xff\xdb", "a DICOM|damaged"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_cannot_be_shown_is_refused_by_its_cause_in_one_line(
    what: str, tmp_path: Path
) -> None:
    content, reason = BROKEN[what]
    path = written(tmp_path, content)
    with pytest.raises(BadImageError, match=reason) as error:
        converted(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)

"""DICOM: drawn ones whose pixels are known, and those that pydicom itself ships."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data_shards.images.conversion import convert_image
from data_shards.images.dicom import view_position
from data_shards.images.refusals import BadImageError
from tests.data_shards.images.drawn import QUARTERS, quarters, scene
from tests.data_shards.images.drawn_dicom import (
    TWELVE,
    converted,
    dicom,
    elements,
    lut,
    pydicom,
    run_lengths,
    stored,
    written,
)

DRAWN: dict[str, bytes] = {
    "8 bits": dicom(scene(), bits=8),
    "12 bits of 16": dicom(TWELVE, bits=12),
    "16 bits": dicom(scene(65535), bits=16),
    "signed": dicom((TWELVE.astype(np.int32) - 2048).astype(np.int16), bits=12, signed=True),
    "white is zero": dicom(255 - scene(), bits=8, PhotometricInterpretation="MONOCHROME1"),
    "a slope below zero": dicom(255 - scene(), bits=8, RescaleSlope=-1, RescaleIntercept=255),
    "a window over a part of the range": dicom(
        # The window's 1,024 values, from 1,000 on, are black to white.
        np.rint(1000 + scene(4095) / 4).astype(np.uint16),
        bits=12,
        WindowCenter=1000 + 512,
        WindowWidth=1025,
    ),
    "a window in units of the rescaled values": dicom(
        TWELVE, bits=12, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=3995, WindowWidth=8191
    ),
    "the first of two windows": dicom(
        TWELVE, bits=12, WindowCenter=[2048, 7], WindowWidth=[4096, 3]
    ),
    "a window on white that is zero": dicom(
        4095 - TWELVE,
        bits=12,
        WindowCenter=2048,
        WindowWidth=4096,
        PhotometricInterpretation="MONOCHROME1",
    ),
    "a VOI LUT": dicom(
        np.rint(scene() / 51).astype(np.uint8),
        bits=8,
        VOILUTSequence=lut([0, 51, 102, 153, 204, 255], first=0, bits=8),
    ),
    "a modality LUT and a window": dicom(
        np.rint(scene() / 51).astype(np.uint8),
        bits=8,
        ModalityLUTSequence=lut([0, 13107, 26214, 39321, 52428, 65535], first=0, bits=16),
        WindowCenter=32768,
        WindowWidth=65536,
    ),
    "a window without width is none": dicom(TWELVE, bits=12, WindowCenter=1, WindowWidth=0),
    "nor is one of a width below zero": dicom(TWELVE, bits=12, WindowCenter=1, WindowWidth=-5),
    "an empty window function": dicom(
        TWELVE, bits=12, WindowCenter=2048, WindowWidth=4096, VOILUTFunction=""
    ),
    "a window function in lower case": dicom(
        TWELVE, bits=12, WindowCenter=2047.5, WindowWidth=4095, VOILUTFunction="linear_exact"
    ),
    "an interpretation in lower case": dicom(
        255 - scene(), bits=8, PhotometricInterpretation="monochrome1"
    ),
    "an interpretation between blanks": dicom(
        4095 - TWELVE,
        bits=12,
        WindowCenter=2048,
        WindowWidth=4096,
        PhotometricInterpretation=" Monochrome1 ",
    ),
    "a modality LUT alone": dicom(
        np.rint(scene() / 51).astype(np.uint8),
        bits=8,
        ModalityLUTSequence=lut([0, 13107, 26214, 39321, 52428, 65535], first=0, bits=16),
    ),
    "a modality LUT of 8 bits that inverts": dicom(
        5 - np.rint(scene() / 51).astype(np.uint8),
        bits=8,
        ModalityLUTSequence=lut([255, 204, 153, 102, 51, 0], first=0, bits=8),
    ),
    "a modality LUT of signed values that are white at zero": dicom(
        np.rint(scene() / 51).astype(np.int16) - 3,
        bits=12,
        signed=True,
        ModalityLUTSequence=lut([65535, 52428, 39321, 26214, 13107, 0], first=-3, bits=16),
        PhotometricInterpretation="MONOCHROME1",
    ),
    "a modality LUT, and not the slope beside it": dicom(
        scene(),
        bits=8,
        ModalityLUTSequence=lut(list(range(256)), first=0, bits=8),
        RescaleSlope=-1,
        RescaleIntercept=255,
    ),
}


@pytest.mark.parametrize("how", DRAWN)
def test_grey_comes_out_as_a_viewer_shows_it(how: str, tmp_path: Path) -> None:
    found = quarters(stored(written(tmp_path, DRAWN[how])))
    assert np.abs(np.subtract(found, QUARTERS)).max() <= 1


def test_run_lengths_hold_the_pixels_that_went_in(tmp_path: Path) -> None:
    path = written(tmp_path, run_lengths(DRAWN["12 bits of 16"]))
    assert np.abs(np.subtract(quarters(stored(path)), QUARTERS)).max() <= 1


def test_a_modality_lut_that_fills_a_part_of_its_range_is_told_as_unused_bits(
    tmp_path: Path,
) -> None:
    table = lut([0, 819, 1638, 2457, 3276, 4095], first=0, bits=16)
    pixels = np.rint(scene() / 51).astype(np.uint8)
    path = written(tmp_path, dicom(pixels, bits=8, ModalityLUTSequence=table))
    assert ("unused_bits", "12 bits of 16") in converted(path).notes
    found = convert_image(path, longest_side_px=64, jpeg_quality=100, depth=12)
    with Image.open(io.BytesIO(found.jpeg)) as image:
        assert np.abs(np.subtract(quarters(np.asarray(image)), QUARTERS)).max() <= 1


def with_letters(share: float, value: int) -> NDArray[Any]:
    """A scene of 12 bits, of which the first samples, `share` of all, are overwritten."""
    pixels = TWELVE.astype(np.int32)
    pixels.reshape(-1)[: int(share * pixels.size)] = value
    return pixels


@pytest.mark.parametrize("words", ["plain", "in run lengths"])
@pytest.mark.parametrize(
    ("signed", "value", "becomes"),
    [(False, 4096, 255), (False, 9999, 255), (True, 2048, 255), (True, -2049, 0)],
)
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 2048, "WindowWidth": 4096}])
def test_few_samples_beyond_the_bits_stored_become_white_or_black_and_are_counted(
    words: str, signed: bool, value: int, becomes: int, window: dict[str, int], tmp_path: Path
) -> None:
    shift = 2048 if signed else 0
    pixels = (with_letters(0.1, value + shift) - shift).astype(np.int16 if signed else np.uint16)
    if window:
        window = window | {"WindowCenter": 2048 - shift}
    content = dicom(pixels, bits=12, signed=signed, **window)
    path = written(tmp_path, content if words == "plain" else run_lengths(content))
    assert ("clipped", "10 % of their samples") in converted(path).notes
    found = stored(path)
    assert abs(int(found[0, 0]) - becomes) <= 1
    assert np.abs(np.subtract(quarters(found), QUARTERS)[2:]).max() <= 1


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 2048, "WindowWidth": 4096}])
def test_a_picture_beyond_the_bits_stored_is_refused(
    signed: bool, window: dict[str, int], tmp_path: Path
) -> None:
    shift = 2048 if signed else 0
    pixels = (np.arange(4096).reshape(64, 64) - shift).astype(np.int16 if signed else np.uint16)
    path = written(tmp_path, dicom(pixels, bits=10, signed=signed, **window))
    said = f"more than the 10 bits of BitsStored .{-shift} to {4095 - shift}.: correct BitsStored"
    said += " or PixelRepresentation" if signed else ", or pass"
    with pytest.raises(BadImageError, match=said):
        converted(path)


def test_drawings_in_the_bits_above_the_samples_are_no_samples(tmp_path: Path) -> None:
    made = pydicom.dcmread(io.BytesIO(dicom(TWELVE | 0x8000, bits=12)))
    made.add_new((0x6000, 0x0100), "US", 16)
    made.add_new((0x6000, 0x0102), "US", 15)
    content = io.BytesIO()
    made.save_as(content, enforce_file_format=True)
    found = quarters(stored(written(tmp_path, content.getvalue())))
    assert np.abs(np.subtract(found, QUARTERS)).max() <= 1


WITHOUT_PREAMBLE = {
    "with the elements on the file": DRAWN["12 bits of 16"][132:],
    "explicit types": elements("explicit"),
    "implicit types": elements("implicit"),
}


@pytest.mark.parametrize("how", WITHOUT_PREAMBLE)
def test_without_its_preamble_an_image_is_read_all_the_same(how: str, tmp_path: Path) -> None:
    content = WITHOUT_PREAMBLE[how]
    assert b"DICM" not in content
    found = quarters(stored(written(tmp_path, content)))
    assert np.abs(np.subtract(found, QUARTERS)).max() <= 1


def test_a_view_is_told_by_the_header_and_by_nothing_else(tmp_path: Path) -> None:
    def told(content: bytes) -> str:
        return view_position(written(tmp_path, content))

    assert told(dicom(scene(), bits=8, ViewPosition="AP")) == "AP"
    assert told(dicom(scene(), bits=8)[:-100]) == told(b"\x89PNG\r\n\x1a\n") == told(b"") == ""
    assert view_position(tmp_path / "absent.dcm") == ""


# The same picture, as pydicom ships it.
SHIPPED = (
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
)


def test_one_picture_in_six_encodings_is_one_picture() -> None:
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    first, *others = (stored(folder / name) for name in SHIPPED)
    assert all(np.array_equal(first, other) for other in others)
    assert len(np.unique(first)) > 100


def test_lossless_jpeg_and_colour_are_read() -> None:
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    lossless = stored(folder / "SC_rgb_jpeg_gdcm.dcm")
    plain = stored(folder / "SC_rgb_rle.dcm")
    assert np.array_equal(lossless, plain)


def test_every_file_that_pydicom_ships_is_read_or_refused_in_a_line() -> None:
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    read, refused = [], {}
    for path in sorted(folder.glob("*.dcm")):
        try:
            converted(path)
            read.append(path.name)
        except BadImageError as error:
            refused[path.name] = str(error)
    assert len(read) >= 40
    assert "MR_truncated.dcm" in refused
    for name in ("JPEG-lossy.dcm", "JPGExtended.dcm"):
        assert "a JPEG of a kind that is not read (samples of 12 bits)" in refused[name]
    assert not any("\n" in each for each in refused.values())

"""DICOM files: one frame in grey, by the file's own VOI LUT or window where it has one.

Decoding is pydicom's, with gdcm for JPEG (lossless too), JPEG-LS, JPEG 2000 and RLE. The values
that are stored become grey in the order of DICOM PS3.4 N.2: modality LUT or rescale, VOI LUT or
window, and MONOCHROME1 is inverted. Without a VOI LUT or window the samples count as those of any
file (`samples`): of `BitsStored` bits, signed ones shifted by half of their range.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_shards.errors import InputError
from data_shards.images.first_bytes import has_dicom_mark
from data_shards.images.jpeg import jpeg_layout
from data_shards.images.layout import MOST_PIXELS, Layout
from data_shards.images.refusals import UNDECODABLE, RefusedError, damaged, not_read
from data_shards.images.samples import SampleMeaning

if TYPE_CHECKING:
    from pydicom import Dataset

_GREY = ("MONOCHROME1", "MONOCHROME2")
# What reading its header needs, and no image is without.
_NEEDED = ("PixelData", "Rows", "Columns", "BitsAllocated", "PhotometricInterpretation")


# What a compressed frame begins with.
_ITEM = b"\xfe\xff\x00\xe0"
# By whether types of elements are left out, and whether the lowest byte comes first.
_UNCOMPRESSED = {
    (True, True): "1.2.840.10008.1.2",
    (False, True): "1.2.840.10008.1.2.1",
    (False, False): "1.2.840.10008.1.2.2",
}


def dicom_layout(data: bytes) -> Layout:
    """The one frame of a DICOM file, decoded: its header decides on most of what there is to check.

    One without preamble and mark is read where its elements make an image. Raises RefusedError for
    several frames, for a file without an image, in a transfer syntax that no installed decoder
    knows, and with fewer bytes than its header says. Raises InputError where pydicom is not
    installed.
    """
    try:
        from pydicom import dcmread
        from pydicom.errors import InvalidDicomError
    except ImportError as error:
        raise InputError(
            "DICOM files need pydicom and gdcm: pip install 'radalign[dicom]'"
        ) from error
    try:
        is_marked = has_dicom_mark(data)
        header = dcmread(io.BytesIO(data), force=not is_marked)
        if not is_marked:
            _refuse_no_sense(header)
        _refuse_no_frame(header)
        return _grey_layout(header) if _is_grey(header) else _colour_layout(header)
    except InvalidDicomError as error:
        raise damaged(str(error)) from error
    except NotImplementedError as error:
        raise not_read("DICOM", str(error)) from error


def view_position(path: Path) -> str:
    """The ViewPosition (0018,5101) of a DICOM file; empty without one.

    Also where the file cannot be read, which is said of it when its image is.
    """
    try:
        from pydicom import dcmread

        header = dcmread(path, stop_before_pixels=True, specific_tags=["ViewPosition"], force=True)
        return str(header.get("ViewPosition") or "")
    except (ImportError, NotImplementedError, *UNDECODABLE):
        return ""


def _refuse_no_sense(header: Dataset) -> None:
    """Of a file without its mark: what it cannot be without, were it an image.

    Where the elements on the file are lost too, the way that its elements are written is the
    transfer syntax, unless the pixels are compressed.
    """
    missing = [name for name in _NEEDED if header.get(name) is None]
    if missing:
        raise RefusedError(
            "not an image, though it begins as a DICOM without its preamble",
            "fetch the file again",
            f"no {missing[0]}",
        )
    if not header.file_meta.get("TransferSyntaxUID"):
        if header.PixelData.startswith(_ITEM):
            raise RefusedError("a compressed DICOM without a transfer syntax", "restore the file")
        header.file_meta.TransferSyntaxUID = _UNCOMPRESSED[header.original_encoding]


def _refuse_no_frame(header: Dataset) -> None:
    missing = [name for name in _NEEDED if header.get(name) is None]
    if missing:
        raise RefusedError("a DICOM without an image", "leave it out", f"no {missing[0]}")
    if not getattr(header, "file_meta", {}).get("TransferSyntaxUID"):
        raise RefusedError("a DICOM without a transfer syntax", "restore the file")
    frames = int(header.get("NumberOfFrames") or 1)
    if frames > 1:
        raise RefusedError("a file of several pages", "split it", f"{frames} frames")
    if header.Rows * header.Columns > MOST_PIXELS:
        raise RefusedError("an image of more pixels than are read", "shrink it")
    _refuse_no_decoder(header)


def _refuse_no_decoder(header: Dataset) -> None:
    from pydicom.encaps import generate_frames
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEGExtended12Bit

    syntax = header.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return
    if syntax == JPEGExtended12Bit:
        # Twelve bits, which are refused here by name, may end gdcm and the process with it.
        jpeg_layout(next(generate_frames(header.PixelData, number_of_frames=1)))
    if not get_decoder(syntax).is_available:
        raise RefusedError(
            f"a DICOM in {syntax.name}, for which no decoder is installed",
            "pip install 'radalign[dicom]'",
        )


def _is_grey(header: Dataset) -> bool:
    return header.PhotometricInterpretation in _GREY and header.get("SamplesPerPixel", 1) == 1


def _grey_layout(header: Dataset) -> Layout:
    values = _pixels(header)
    size = (int(header.Columns), int(header.Rows))
    white_is_zero = header.PhotometricInterpretation == "MONOCHROME1"
    if _has_voi(header):
        grey = _windowed(values, header)
        meaning = SampleMeaning(8, white_is_zero=white_is_zero)
        return Layout(size, meaning, b"", _sound, picture=Image.fromarray(grey))
    bits = int(header.get("BitsStored") or header.BitsAllocated)
    if bits > 16:
        return Layout(size, SampleMeaning(bits), b"", _sound, picture=Image.new("L", size))
    if header.get("PixelRepresentation") == 1:
        values = values.astype(np.int32) + 2 ** (bits - 1)
    # A slope below zero turns black and white, as MONOCHROME1 does.
    white_is_zero ^= float(header.get("RescaleSlope") or 1) < 0
    values = np.clip(values, 0, 2**bits - 1)
    if bits <= 8:
        if bits < 8:
            values = values.astype(np.uint16) * 255 // (2**bits - 1)
        meaning = SampleMeaning(8, white_is_zero=white_is_zero)
        picture = Image.fromarray(np.ascontiguousarray(values, dtype=np.uint8))
    else:
        meaning = SampleMeaning(bits, white_is_zero=white_is_zero)
        picture = Image.fromarray(np.ascontiguousarray(values, dtype=np.uint16))
    return Layout(size, meaning, b"", _sound, picture=picture)


def _colour_layout(header: Dataset) -> Layout:
    """Colour, and palettes: in 8 bits a channel."""
    from pydicom.pixels import apply_color_lut

    size = (int(header.Columns), int(header.Rows))
    values = _pixels(header)
    if header.PhotometricInterpretation == "PALETTE COLOR":
        values = apply_color_lut(values, header)
        if values.dtype == np.uint16:
            # DICOM PS3.3 C.7.6.3.1.5: entries of 16 bits, of which 8 are shown.
            values = (values >> 8).astype(np.uint8)
    if values.dtype != np.uint8 or values.ndim != 3 or values.shape[2] != 3:
        raise not_read("DICOM", f"{header.PhotometricInterpretation} of {values.dtype}")
    return Layout(size, SampleMeaning(8), b"", _sound, picture=Image.fromarray(values))


def _pixels(header: Dataset) -> NDArray[Any]:
    from pydicom.pixels import pixel_array
    from pydicom.uid import JPEGBaseline8Bit

    # Pillow decodes these in less time than gdcm, which pydicom would ask first.
    is_plain = header.file_meta.TransferSyntaxUID == JPEGBaseline8Bit and _is_grey(header)
    try:
        values: NDArray[Any] = pixel_array(header, decoding_plugin="pillow" if is_plain else "")
    except RuntimeError as error:
        raise RefusedError(
            "a DICOM that its decoders refuse",
            "restore the file, or save it uncompressed",
            " ".join(str(error).split()),
        ) from error
    if values.shape[:2] != (header.Rows, header.Columns):
        raise damaged(f"{values.shape} pixels, where the header says otherwise")
    return values


def _has_voi(header: Dataset) -> bool:
    if header.get("VOILUTSequence"):
        return True
    return header.get("WindowCenter") is not None and header.get("WindowWidth") is not None


def _windowed(values: NDArray[Any], header: Dataset) -> NDArray[np.uint8]:
    """Values by the modality and VOI transformations, their whole output range onto 0 to 255."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    first, last = _stored_range(header)
    # A table of what each value becomes: they are fewer than pixels.
    every = np.arange(first, last + 1, dtype=np.int32).reshape(1, -1)
    # Of several windows the first is the one that viewers open with.
    shown = np.asarray(apply_voi_lut(apply_modality_lut(every, header), header), dtype=np.float64)
    if not np.isfinite(shown).all():
        raise damaged("a window or rescale that is no number")
    low, high = _shown_range(header)
    levels = np.clip((shown[0] - low) * (255 / (high - low)) + 0.5, 0, 255).astype(np.uint8)
    grey: NDArray[np.uint8] = levels[np.clip(values.astype(np.int32), first, last) - first]
    return grey


def _stored_range(header: Dataset) -> tuple[int, int]:
    bits = int(header.get("BitsStored") or header.BitsAllocated)
    if bits > 16:
        raise not_read("DICOM", f"{bits} bits")
    signed = header.get("PixelRepresentation") == 1
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def _shown_range(header: Dataset) -> tuple[float, float]:
    """The lowest and highest value that the VOI transformation can give."""
    if header.get("VOILUTSequence"):
        return 0.0, float(2 ** int(header.VOILUTSequence[0].LUTDescriptor[2]) - 1)
    if header.get("ModalityLUTSequence"):
        return 0.0, float(2 ** int(header.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    low, high = map(float, _stored_range(header))
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    if slope is None or intercept is None:
        return low, high
    return low * float(slope) + float(intercept), high * float(slope) + float(intercept)


def _sound(_: Image.Image) -> None:
    """The decoder has seen all bytes already."""

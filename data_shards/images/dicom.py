"""DICOM files: one frame, decoded; what its values are in grey is told by `dicom_grey`.

Decoding is pydicom's, with gdcm for JPEG (lossless too), JPEG-LS, JPEG 2000 and RLE.
"""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_shards.errors import InputError
from data_shards.images.dicom_grey import Shown, shown_grey
from data_shards.images.first_bytes import has_dicom_mark
from data_shards.images.jpeg import jpeg_layout
from data_shards.images.layout import MOST_PIXELS, Layout
from data_shards.images.refusals import UNDECODABLE, RefusedError, damaged, not_read, wrong_value
from data_shards.images.samples import SampleMeaning

if TYPE_CHECKING:
    from pydicom import Dataset

_GREY = ("MONOCHROME1", "MONOCHROME2")
# What reading its header needs, and no image is without.
_NEEDED = ("PixelData", "Rows", "Columns", "BitsAllocated", "PhotometricInterpretation")


# What a compressed frame begins with.
_ITEM = b"\xfe\xff\x00\xe0"
# What compressed pixels begin with, whose length is open.
_COMPRESSED_PIXELS = re.compile(rb"\xe0\x7f\x10\0O[BW]\0\0\xff{4}")
_OPEN_LENGTH = 0xFFFFFFFF
_SHORTEST_ELEMENT = 8
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
        from pydicom.errors import BytesLengthException, InvalidDicomError
    except ImportError as error:
        raise InputError(
            "DICOM files need pydicom and gdcm: pip install 'radalign[dicom]'"
        ) from error
    try:
        is_marked = has_dicom_mark(data)
        header = dcmread(io.BytesIO(data), force=not is_marked)
        if is_marked:
            _refuse_cut(header, data)
        else:
            _refuse_no_sense(header)
        _refuse_no_frame(header)
        values = _pixels(header)
        shown = shown_grey(values, header) if _is_grey(header) else _shown_colour(values, header)
    except (InvalidDicomError, BytesLengthException) as error:
        raise damaged(str(error)) from error
    except NotImplementedError as error:
        raise not_read("DICOM", str(error)) from error
    size = (int(header.Columns), int(header.Rows))
    return Layout(size, shown.meaning, b"", _sound, picture=shown.picture, clipped=shown.clipped)


def view_position(path: Path) -> str:
    """The ViewPosition (0018,5101) of a DICOM file; empty without one.

    Also where the file cannot be read, which is said of it when its image is.
    """
    try:
        from pydicom import dcmread
    except ImportError:
        return ""
    from pydicom.errors import BytesLengthException

    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=["ViewPosition"], force=True)
        return str(header.get("ViewPosition") or "")
    except (BytesLengthException, NotImplementedError, *UNDECODABLE):
        return ""


def _refuse_cut(header: Dataset, data: bytes) -> None:
    """Of a file without pixels: where it ends within an element, or right behind its mark.

    pydicom takes what is left for the whole, and compressed pixels without an end for none. A cut
    between two elements cannot be told from a file that never had pixels.
    """
    from pydicom.dataelem import RawDataElement
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    # What was deflated is told when it is inflated.
    syntax = header.file_meta.get("TransferSyntaxUID")
    if "PixelData" in header or syntax == DeflatedExplicitVRLittleEndian:
        return
    if _COMPRESSED_PIXELS.search(data):
        raise damaged("its pixels have no end")
    if not len(header):
        raise damaged("nothing behind its mark")
    last = header.get_item(max(header.keys()))
    if isinstance(last, RawDataElement) and last.length != _OPEN_LENGTH:
        left = len(data) - last.value_tell - last.length
        if left < 0 or 0 < left < _SHORTEST_ELEMENT:
            raise damaged("it ends within an element")


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
    _set_interpretation(header)
    if not getattr(header, "file_meta", {}).get("TransferSyntaxUID"):
        raise RefusedError("a DICOM without a transfer syntax", "restore the file")
    frames = int(header.get("NumberOfFrames") or 1)
    if frames > 1:
        raise RefusedError("a file of several pages", "split it", f"{frames} frames")
    if header.Rows * header.Columns > MOST_PIXELS:
        raise RefusedError("an image of more pixels than are read", "shrink it")
    _refuse_no_decoder(header)


def _set_interpretation(header: Dataset) -> None:
    """As the standard spells it: in capitals, with one blank between words."""
    from pydicom.pixels.common import PhotometricInterpretation

    said = header.PhotometricInterpretation
    meant = " ".join(str(said).upper().split())
    if meant not in {each.value for each in PhotometricInterpretation}:
        raise wrong_value("PhotometricInterpretation", said)
    header.PhotometricInterpretation = meant


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


def _shown_colour(values: NDArray[Any], header: Dataset) -> Shown:
    """Colour, and palettes: in 8 bits a channel."""
    from pydicom.pixels import apply_color_lut

    if header.PhotometricInterpretation == "PALETTE COLOR":
        values = apply_color_lut(values, header)
        if values.dtype == np.uint16:
            # DICOM PS3.3 C.7.6.3.1.5: entries of 16 bits, of which 8 are shown.
            values = (values >> 8).astype(np.uint8)
    if values.dtype != np.uint8 or values.ndim != 3 or values.shape[2] != 3:
        raise not_read("DICOM", f"{header.PhotometricInterpretation} of {values.dtype}")
    return Shown(Image.fromarray(values), SampleMeaning(8))


def _pixels(header: Dataset) -> NDArray[Any]:
    """All samples; grey ones that are stored in whole words with the bits above `BitsStored`."""
    from pydicom.pixels import pixel_array
    from pydicom.uid import JPEGBaseline8Bit, RLELossless

    syntax = header.file_meta.TransferSyntaxUID
    # Pillow decodes these in less time than gdcm, which pydicom would ask first.
    is_plain = syntax == JPEGBaseline8Bit and _is_grey(header)
    # Other decoders fill these bits as they like, pydicom's own cut them off.
    is_words = not syntax.is_compressed or syntax == RLELossless
    try:
        values: NDArray[Any] = pixel_array(
            header,
            decoding_plugin="pillow" if is_plain else "",
            correct_unused_bits=not (is_words and _is_grey(header)) or _has_overlay_bits(header),
        )
    except RuntimeError as error:
        raise RefusedError(
            "a DICOM that its decoders refuse",
            "restore the file, or save it uncompressed",
            " ".join(str(error).split()),
        ) from error
    if values.shape[:2] != (header.Rows, header.Columns):
        raise damaged(f"{values.shape} pixels, where the header says otherwise")
    return values


def _has_overlay_bits(header: Dataset) -> bool:
    """Whether bits that no sample uses hold drawings, as files before 2004 may have it."""
    return any(
        (group, 0x3000) not in header
        and header.get((group, 0x0102))
        and header[group, 0x0102].value
        for group in range(0x6000, 0x6020, 2)
    )


def _sound(_: Image.Image) -> None:
    """The decoder has seen all bytes already."""

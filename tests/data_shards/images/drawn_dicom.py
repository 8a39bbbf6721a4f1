"""DICOM files of drawn pixels; who imports this is skipped where nothing can read them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data_shards.images.conversion import ConvertedImage, convert_image
from tests.data_shards.images.drawn import scene

pydicom = pytest.importorskip("pydicom", reason="pip install 'radalign[dicom]'")
pytest.importorskip("gdcm", reason="pip install 'radalign[dicom]'")

TWELVE = scene(4095)


def dicom(pixels: NDArray[Any], *, bits: int, signed: bool = False, **elements: Any) -> bytes:
    """A file of these samples, uncompressed, with the elements given by keyword."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    made = pydicom.Dataset()
    made.file_meta = meta
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.BitsAllocated = 8 * pixels.dtype.itemsize
    made.BitsStored, made.HighBit = bits, bits - 1
    made.PixelRepresentation = int(signed)
    made.PixelData = pixels.tobytes()
    for name, value in elements.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    written = io.BytesIO()
    made.save_as(written, enforce_file_format=True)
    return written.getvalue()


def stored(path: Path) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(converted(path).jpeg)) as image:
        return np.asarray(image)


def converted(path: Path) -> ConvertedImage:
    return convert_image(path, longest_side_px=64, jpeg_quality=100)


def written(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "a.dcm"
    path.write_bytes(content)
    return path


def lut(entries: list[int], *, first: int, bits: int) -> Any:
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", entries)
    return pydicom.Sequence([item])


def run_lengths(content: bytes) -> bytes:
    """The same file, compressed."""
    made = pydicom.dcmread(io.BytesIO(content))
    made.compress(pydicom.uid.RLELossless)
    written = io.BytesIO()
    made.save_as(written, enforce_file_format=True)
    return written.getvalue()


def elements(syntax: str, **changes: Any) -> bytes:
    """A file without preamble, mark and elements on the file, written as `syntax` says."""
    made = pydicom.dcmread(io.BytesIO(dicom(TWELVE, bits=12)))
    for name, value in changes.items():
        setattr(made, name, value)
    written = io.BytesIO()
    how = {
        "implicit": {"implicit_vr": True, "little_endian": True},
        "explicit": {"implicit_vr": False, "little_endian": True},
    }[syntax]
    made.SpecificCharacterSet = "ISO_IR 100"
    del made.file_meta
    made.preamble = None
    pydicom.dcmwrite(written, made, enforce_file_format=False, **how)
    return written.getvalue()

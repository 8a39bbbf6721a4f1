"""DICOM files as the phantom writes them: 8-bit radiographs, plain or as JPEG."""

from __future__ import annotations

import io

from jaxtyping import UInt8
from numpy import ndarray

from data_shards.errors import InputError
from data_shards.phantom.layouts.drawn import encoded

_ROOT = "1.2.276.0.7230010.3.1"


def uid(kind: int, *numbers: int) -> str:
    """A DICOM id of these numbers."""
    return ".".join([_ROOT, str(kind), *map(str, numbers)])


def dicom_bytes(
    frontal: UInt8[ndarray, "height width"], *, name: str, view: str, jpeg: bool
) -> bytes:
    """A DICOM of one frontal; with `jpeg` as JPEG baseline, as RSNA's and SIIM's are.

    Raises InputError where pydicom is not installed.
    """
    try:
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.encaps import encapsulate
        from pydicom.uid import (
            ExplicitVRLittleEndian,
            JPEGBaseline8Bit,
            SecondaryCaptureImageStorage,
        )
    except ImportError as error:
        raise InputError(
            "the phantom's DICOM files need pydicom: pip install 'radalign[dicom]'"
        ) from error
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if jpeg else ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = name
    made.SOPClassUID, made.SOPInstanceUID = SecondaryCaptureImageStorage, name
    made.Modality, made.BodyPartExamined, made.ViewPosition = "CR", "CHEST", view
    made.Rows, made.Columns = frontal.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    if jpeg:
        made.PixelData = encapsulate([encoded(frontal, "JPEG", quality=95)])
    else:
        made.PixelData = frontal.tobytes() + b"\0" * (frontal.size % 2)
    made["PixelData"].VR = "OB"
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()

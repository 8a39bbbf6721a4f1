"""RSNA's archive for the shards benchmark: JPEG baseline DICOMs, and the bare work on them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_shards.errors import InputError
from data_shards.synthetic_shards import synthetic_jpeg

IMAGES_NAME = "stage_2_train_images"
# The builder's: see data_shards.images.conversion.
OVERSAMPLING = 2


def draw_archive(root: Path, *, images: int, distinct_images: int, side_px: int) -> list[Path]:
    """The DICOMs of an archive of `images`, of which `distinct_images` differ, and its table."""
    folder, random = root / IMAGES_NAME, np.random.default_rng(0)
    folder.mkdir(parents=True)
    paths = [folder / f"{number:06d}.dcm" for number in range(images)]
    for number, path in enumerate(paths):
        if number < distinct_images:
            path.write_bytes(_dicom(synthetic_jpeg(random, width=side_px, height=side_px), side_px))
        else:
            path.hardlink_to(paths[number % distinct_images])
    rows = (f"{path.stem},,,,,0\n" for path in paths)
    table = "".join(["patientId,x,y,width,height,Target\n", *rows])
    (root / "stage_2_train_labels.csv").write_text(table)
    return paths


def source_settings(root: Path) -> dict[str, Any]:
    """What a profile says of the archive."""
    return {"name": "rsna", "root": str(root)}


def convert_bare(paths: Sequence[Path], *, longest_side_px: int, jpeg_quality: int) -> int:
    """The bytes that the converted images have together: pydicom's pixels, resized, as JPEG."""
    from pydicom import dcmread

    total = 0
    for path in paths:
        grey = Image.fromarray(dcmread(path).pixel_array)
        scale = longest_side_px / max(grey.size)
        size = (round(grey.width * scale), round(grey.height * scale))
        shrunk = grey.resize(size, Image.Resampling.BICUBIC, reducing_gap=OVERSAMPLING)
        encoded = io.BytesIO()
        shrunk.save(encoded, "JPEG", quality=jpeg_quality)
        total += encoded.tell()
    return total


def _dicom(jpeg: bytes, side_px: int) -> bytes:
    try:
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.encaps import encapsulate
        from pydicom.uid import JPEGBaseline8Bit, SecondaryCaptureImageStorage
    except ImportError as error:
        raise InputError(
            "benchmark shards source=rsna needs pydicom: pip install 'radalign[dicom]'"
        ) from error
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    made.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    made.Rows = made.Columns = side_px
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    made.PixelData = encapsulate([jpeg])
    made["PixelData"].VR = "OB"
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()

"""Radiographs and masks as a shard stores them: 8-bit grey, the longest side bounded."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from data_shards.images.decode import BadImageError, open_image, to_grey
from data_shards.records.manifest import PixelSums

# libjpeg decodes at 1/2, 1/4 or 1/8 in the DCT domain. Keeping at least twice the target's
# pixels leaves the low-pass to the resize filter, so that the result is free of aliasing.
OVERSAMPLING = 2


# Width and height in pixels.
Size: TypeAlias = tuple[int, int]


def fitted_size(width: int, height: int, longest_side_px: int) -> Size:
    """(width, height) shrunk to `longest_side_px` at its ratio, unchanged when it fits."""
    scale = min(1.0, longest_side_px / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def convert_image(
    path: Path, *, longest_side_px: int, jpeg_quality: int
) -> tuple[bytes, Size, Size]:
    """The image at `path` in grey, shrunk to `longest_side_px` (never enlarged), as JPEG.

    With it come its own size and the original's.
    Colour becomes luma and transparency is ignored. 16-bit samples span 0 to 65,535, as PNG
    defines them. Raises BadImageError for a file that is missing, foreign or damaged.
    """
    with open_image(path, otherwise=", or pass bad_images=drop") as image:
        original = image.size
        size = fitted_size(*original, longest_side_px)
        # Other formats ignore the wish.
        image.draft("L", (OVERSAMPLING * size[0], OVERSAMPLING * size[1]))
        grey = to_grey(image)
    if grey.size != size:
        grey = grey.resize(size, Image.Resampling.BICUBIC, reducing_gap=OVERSAMPLING)
    encoded = io.BytesIO()
    grey.save(encoded, "JPEG", quality=jpeg_quality)
    return encoded.getvalue(), size, original


def convert_mask(path: Path, *, original: Size, stored: Size) -> bytes:
    """The mask at `path` as a PNG of 0 and 255, nearest neighbour from `original` to `stored`.

    Non-zero in any colour channel is inside. Raises BadImageError when the file cannot be read or
    does not have the size of its image.
    """
    with open_image(path) as image:
        if image.size != original:
            raise BadImageError(
                path,
                f"a mask of {image.width} x {image.height} px over an image of "
                f"{original[0]} x {original[1]} px",
                "give the mask the size of its image",
            )
        resized = image.resize(stored, Image.Resampling.NEAREST)
    if resized.mode in {"P", "PA", "LA", "La", "RGBA", "RGBa", "CMYK", "YCbCr"}:
        resized = resized.convert("RGB")
    values = np.asarray(resized).reshape(stored[1], stored[0], -1)
    inside = np.where(values.any(axis=2), np.uint8(255), np.uint8(0))
    encoded = io.BytesIO()
    Image.fromarray(inside).save(encoded, "PNG")
    return encoded.getvalue()


def pixel_sums(jpeg: bytes) -> PixelSums:
    """Exact sums over the pixels a grey JPEG decodes to: what training will see."""
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        histogram = image.histogram()
    return PixelSums(
        count=sum(histogram),
        total=sum(value * count for value, count in enumerate(histogram)),
        total_of_squares=sum(value * value * count for value, count in enumerate(histogram)),
    )

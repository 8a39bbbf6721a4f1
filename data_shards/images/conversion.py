"""Radiographs and masks as a shard stores them: 8-bit grey, the longest side bounded.

A file that cannot be read becomes an error that says what is wrong with it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

from data_shards.errors import InputError
from data_shards.records.manifest import PixelSums

FORMATS = ("JPEG", "PNG", "TIFF", "BMP")

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

    With it come its own size and the original's. Colour becomes luma and transparency is ignored.
    16-bit samples span 0 to 65,535, as PNG defines them. Raises BadImageError for a file that is
    missing, foreign or damaged.
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


class BadImageError(InputError):
    """An image that cannot be stored: where it is, and why in few words that can be counted."""

    def __init__(self, path: Path, reason: str, remedy: str) -> None:
        # All three reach Exception.args, so that the error survives the way out of a worker.
        super().__init__(path, reason, remedy)
        self.reason = reason

    def __str__(self) -> str:
        return ": ".join(map(str, self.args))


@contextmanager
def open_image(path: Path, *, otherwise: str = "") -> Iterator[Image.Image]:
    """The image at `path`; whatever goes wrong while it is decoded becomes a BadImageError.

    `otherwise` ends the remedy. A mask has none: without it the study would say something else.
    """
    restore = f"restore the file{otherwise}"
    try:
        # Read by the path itself: it may lie in a tar.
        with Image.open(io.BytesIO(path.read_bytes()), formats=FORMATS) as image:
            image.filename = str(path)
            yield image
    except BadImageError:
        raise
    except FileNotFoundError as error:
        raise BadImageError(path, "missing image", restore) from error
    except (PermissionError, IsADirectoryError) as error:
        raise BadImageError(path, "image that cannot be opened", restore) from error
    except UnidentifiedImageError as error:
        kinds = "not a JPEG, PNG, TIFF or BMP image"
        raise BadImageError(path, kinds, f"convert it{otherwise}") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow's own words (bytes missing, checksum of a PNG chunk) are in the cause.
        raise BadImageError(path, "truncated or damaged image", restore) from error


def to_grey(image: Image.Image) -> Image.Image:
    """`image` in 8-bit grey. Raises BadImageError for samples of 32 bits, of unknown range."""
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips at 255.
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode in {"I", "F"}:
        raise BadImageError(
            Path(getattr(image, "filename", "")),
            "an image of 32-bit samples",
            "convert it to 8 or 16 bits, or pass bad_images=drop",
        )
    return image.convert("L")

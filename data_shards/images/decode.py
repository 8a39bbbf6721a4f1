"""Image files of the formats that archives use, and what is wrong with one that cannot be read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from data_shards.errors import InputError

FORMATS = ("JPEG", "PNG", "TIFF", "BMP")


class BadImageError(InputError):
    """An image that cannot be stored: where it is, and why in few words that can be counted."""

    def __init__(self, path: Path, reason: str, remedy: str) -> None:
        # All three reach Exception.args, so that the error survives the way out of a worker.
        super().__init__(path, reason, remedy)
        self.path = path
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}: {self.remedy}"


@contextmanager
def open_image(path: Path, *, otherwise: str = "") -> Iterator[Image.Image]:
    """The image at `path`; whatever goes wrong while it is decoded becomes a BadImageError.

    `otherwise` ends the remedy. A mask has none: without it the study would say something else.
    """
    restore = f"restore the file{otherwise}"
    try:
        with Image.open(path, formats=FORMATS) as image:
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

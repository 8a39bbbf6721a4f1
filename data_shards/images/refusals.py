"""Why an image is not stored: a reason that can be counted, what was seen, and what to do."""

from __future__ import annotations

import struct
import zlib

from PIL import Image

from data_shards.errors import InputError
from data_shards.records.study import ImageFile

# All that decoders raise when bytes make no sense to them. A full memory is not the file's fault.
UNDECODABLE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class RefusedError(Exception):
    """What is wrong with the content of an image file, wherever it lies.

    `reason` is the same for all files with that trouble; `detail` may hold numbers of this one.
    """

    def __init__(self, reason: str, remedy: str, detail: str = "") -> None:
        super().__init__(reason, remedy, detail)
        self.reason, self.remedy, self.detail = reason, remedy, detail


class BadImageError(InputError):
    """An image that cannot be stored: where it is, and why in few words that can be counted."""

    def __init__(self, path: ImageFile, reason: str, remedy: str, detail: str = "") -> None:
        # All reach Exception.args, so that the error survives the way out of a worker.
        super().__init__(path, reason, remedy, detail)
        self.reason, self.remedy, self.detail = reason, remedy, detail

    def __str__(self) -> str:
        seen = f" ({self.detail})" if self.detail else ""
        return f"{self.args[0]}: {self.reason}{seen}: {self.remedy}"


def damaged(detail: str) -> RefusedError:
    """A part of the file is missing or is not what was written."""
    return RefusedError("truncated or damaged image", "restore the file", detail)


def wrong_value(element: str, value: object) -> RefusedError:
    """What a DICOM says of itself, in an element of this keyword, is impossible."""
    detail = f"{element}={value}"
    return RefusedError("a DICOM with a value that cannot be meant", "correct it", detail)


def not_read(kind: str, what: str) -> RefusedError:
    """A format that is read, in a layout that is not: `kind` is JPEG, PNG, TIFF, BMP or
    DICOM."""
    return RefusedError(f"a {kind} of a kind that is not read ({what})", "save it in another way")

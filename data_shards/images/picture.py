"""The picture in an image file, whatever its format, or the reason why there is none to store."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from data_shards.errors import MISSING_IMAGE
from data_shards.images.bmp import bmp_layout
from data_shards.images.dicom import dicom_layout
from data_shards.images.first_bytes import Format, format_of
from data_shards.images.jpeg import jpeg_layout
from data_shards.images.layout import MOST_PIXELS, Layout, Size
from data_shards.images.orientation import UPRIGHT, orientation_in
from data_shards.images.png import png_layout
from data_shards.images.refusals import (
    UNDECODABLE,
    BadImageError,
    RefusedError,
    damaged,
    not_read,
)
from data_shards.images.tiff import tiff_layout
from data_shards.records.study import ImageFile

MOST_BYTES = 1 << 31
_LAYOUT_OF: dict[Format, Callable[[bytes], Layout]] = {
    "JPEG": jpeg_layout,
    "PNG": png_layout,
    "TIFF": tiff_layout,
    "BMP": bmp_layout,
    "DICOM": dicom_layout,
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {5, 6, 7, 8}


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture whose pixels are not decoded yet.

    `orientation` is one of EXIF's eight, 1 when the file says none; `unknown_orientation` is what
    it says instead.
    """

    layout: Layout
    image: Image.Image
    format: Format
    orientation: int
    unknown_orientation: str = ""

    @property
    def size(self) -> Size:
        """Width and height of the picture when it stands upright."""
        width, height = self.layout.size
        return (height, width) if self.orientation in _SIDEWAYS else (width, height)

    def decoded(self, *, least: Size | None = None) -> Image.Image:
        """The pixels as they lie in the file, in Pillow's mode for them.

        With `least`, a JPEG may come in grey and smaller, by 2, 4 or 8, but not below that upright
        size. Raises RefusedError where a part is damaged or missing.
        """
        if least is not None:
            # Other formats ignore the wish.
            self.image.draft("L", least[::-1] if self.orientation in _SIDEWAYS else least)
        with _quiet(self.format), _refusing_what_decoders_raise():
            self.image.load()
            self.layout.check(self.image)
        return self.image

    def upright(self, pixels: Image.Image) -> Image.Image:
        """`pixels`, decoded from this picture, as a viewer shows them."""
        turn = _TURNS.get(self.orientation)
        return pixels if turn is None else pixels.transpose(turn)


def open_picture(path: ImageFile, *, as_stored: bool = False) -> Picture:
    """The picture in the file at `path`.

    `as_stored`: pixels count as they lie, whatever orientation the file names. Raises RefusedError
    for a file that is missing, foreign, damaged or of a kind that is not read, by its cause.
    """
    data = _content(path)
    kind = format_of(data)
    with _refusing_what_decoders_raise():
        with _quiet(kind):
            layout = _LAYOUT_OF[kind](data)
        width, height = layout.size
        if width * height > MOST_PIXELS:
            raise RefusedError(
                f"an image of more than the {MOST_PIXELS / 1e6:.0f} Mpx that are read",
                "shrink it",
                f"{width * height / 1e6:,.0f} Mpx",
            )
        try:
            image = layout.picture or Image.open(io.BytesIO(layout.payload), formats=(kind,))
        except UnidentifiedImageError as error:
            if layout.described:
                raise not_read(kind, layout.described) from error
            raise
        if image.size != layout.size:
            raise damaged("two sizes")
        _refuse_several(image)
    orientation, unknown = (UPRIGHT, "") if as_stored else orientation_in(layout.metadata)
    return Picture(layout, image, kind, orientation, unknown)


@contextmanager
def named(path: ImageFile, *, otherwise: str = "") -> Iterator[None]:
    """Whatever is refused inside becomes a BadImageError of `path`; `otherwise` ends its remedy."""
    try:
        yield
    except RefusedError as error:
        remedy = f"{error.remedy}{otherwise}"
        raise BadImageError(path, error.reason, remedy, error.detail) from error


def _content(path: ImageFile) -> bytes:
    """All bytes of a file. Errors of a disk or network, which say nothing of the file, pass."""
    restore = "restore the file"
    try:
        status = path.stat()
        # A pipe would keep its reader waiting.
        if not stat.S_ISREG(status.st_mode):
            raise RefusedError("image that cannot be opened", restore, "not a file")
        if status.st_size > MOST_BYTES:
            raise RefusedError("a file of more than 2 GiB", "convert it")
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise RefusedError(MISSING_IMAGE, restore) from error
    except ValueError as error:
        raise RefusedError(MISSING_IMAGE, "correct its name", str(error)) from error
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG):
            raise
        raise RefusedError("image that cannot be opened", restore, error.strerror or "") from error


def _refuse_several(image: Image.Image) -> None:
    """Several pictures in one JPEG, as stereo cameras and some phones write them."""
    entries = getattr(image, "mpinfo", {}).get(0xB002, ())
    kinds = [str(entry["Attribute"]["MPType"]) for entry in entries]
    full = sum("Thumbnail" not in kind for kind in kinds)
    if full > 1:
        raise RefusedError("a file of several pages", "split it", f"{full} pages")


@contextmanager
def _refusing_what_decoders_raise() -> Iterator[None]:
    with warnings.catch_warnings():
        # Pillow warns of what is refused, or counted, here.
        warnings.simplefilter("ignore")
        try:
            yield
        except UNDECODABLE as error:
            raise damaged(" ".join(str(error).split())) from error


@contextmanager
def _quiet(kind: Format) -> Iterator[None]:
    """Decoders of C complain on the process's stderr; what they refuse is raised as well."""
    try:
        kept = os.dup(2) if kind in ("TIFF", "DICOM") else None
    except OSError:
        kept = None  # It is closed.
    if kept is None:
        yield
        return
    if sys.stderr is not None:
        sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)

"""Radiographs and masks as a shard stores them: 8-bit grey, upright, the longest side bounded."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_shards.images.layout import Layout, Size
from data_shards.images.notes import Note
from data_shards.images.orientation import UPRIGHT
from data_shards.images.picture import named, open_picture
from data_shards.images.refusals import RefusedError
from data_shards.images.samples import (
    MOST_OF_ONE_VALUE,
    MOST_OUTSIDE,
    Depth,
    SampleMeaning,
    bits_in_use,
    eight_bits,
    refuse_unknown_span,
)
from data_shards.records.study import ImageFile

# libjpeg decodes at 1/2, 1/4 or 1/8 in the DCT domain. Keeping at least twice the target's
# pixels leaves the low-pass to the resize filter, so that the result is free of aliasing.
OVERSAMPLING = 2


class GreyImage(NamedTuple):
    """An image in 8-bit grey, upright and fitted, the upright original's size, and notes."""

    pixels: Image.Image
    original_size: Size
    notes: tuple[Note, ...]


class ConvertedImage(NamedTuple):
    """An image ready to be stored: its JPEG, its own size, the upright original's, and notes."""

    jpeg: bytes
    size: Size
    original_size: Size
    notes: tuple[Note, ...]


def fitted_size(width: int, height: int, longest_side_px: int) -> Size:
    """(width, height) shrunk to `longest_side_px` at its ratio, unchanged when it fits."""
    scale = min(1.0, longest_side_px / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def resized(grey: Image.Image, size: Size) -> Image.Image:
    """An image in 8-bit grey at another size, free of aliasing; itself where it has that."""
    if grey.size == size:
        return grey
    return grey.resize(size, Image.Resampling.BICUBIC, reducing_gap=OVERSAMPLING)


def grey_image(
    path: ImageFile,
    *,
    longest_side_px: int,
    depth: Depth = None,
    as_stored: bool = False,
    otherwise: str = "",
) -> GreyImage:
    """The image at `path` in grey and upright, shrunk to `longest_side_px` (never enlarged).

    Colour becomes luma and transparency is ignored. `depth`: see `samples`. `as_stored`: whatever
    orientation the file names. Raises BadImageError for a file that is missing, foreign, damaged
    or of a kind that is not read; its remedy ends with `otherwise`.
    """
    with named(path, otherwise=otherwise):
        picture = open_picture(path, as_stored=as_stored)
        refuse_unknown_span(picture.layout.meaning)
        size = fitted_size(*picture.size, longest_side_px)
        pixels = picture.decoded(least=(OVERSAMPLING * size[0], OVERSAMPLING * size[1]))
        grey, notes = _to_grey(pixels, picture.layout, depth)
    grey = picture.upright(grey)
    grey = resized(grey, size)
    if picture.orientation != UPRIGHT:
        notes.append(Note("turned", f"orientation {picture.orientation}"))
    if picture.unknown_orientation:
        notes.append(Note("orientation_unknown", picture.unknown_orientation))
    return GreyImage(grey, picture.size, tuple(notes))


def convert_image(
    path: ImageFile,
    *,
    longest_side_px: int,
    jpeg_quality: int,
    depth: Depth = None,
    as_stored: bool = False,
) -> ConvertedImage:
    """`grey_image` as a shard stores it, a JPEG."""
    grey = grey_image(
        path,
        longest_side_px=longest_side_px,
        depth=depth,
        as_stored=as_stored,
        otherwise=", or pass bad_images=drop",
    )
    encoded = io.BytesIO()
    grey.pixels.save(encoded, "JPEG", quality=jpeg_quality)
    return ConvertedImage(encoded.getvalue(), grey.pixels.size, grey.original_size, grey.notes)


def convert_mask(
    path: ImageFile, *, original: Size, stored: Size, as_stored: bool = False
) -> bytes:
    """The mask at `path` as a PNG of 0 and 255, nearest neighbour from `original` to `stored`.

    Non-zero in any colour channel is inside; of a JPEG, whose edges ring, more than half of white.
    Raises BadImageError when the file cannot be read or does not have the size of its image.
    """
    with named(path):
        picture = open_picture(path, as_stored=as_stored)
        if picture.size != original:
            sideways = picture.size == original[::-1]
            raise RefusedError(
                f"a mask of {picture.size[0]} x {picture.size[1]} px over an image of "
                f"{original[0]} x {original[1]} px",
                "give the mask the size of its image"
                + (", turned by the same tag: see source.orientation" if sideways else ""),
            )
        pixels, meaning = picture.decoded(), picture.layout.meaning
        if _has_lost_bits(pixels, meaning):
            raise RefusedError("a mask of 16-bit colour", "save it in grey")
    resized = picture.upright(pixels).resize(stored, Image.Resampling.NEAREST)
    if resized.mode in {"P", "PA", "LA", "La", "RGBA", "RGBa", "CMYK", "YCbCr"}:
        resized = _unmultiplied(resized).convert("RGB")
    values = np.asarray(resized).reshape(stored[1], stored[0], -1)
    if meaning.white_is_zero and meaning.bits <= 16:
        values = values != np.asarray(True if resized.mode == "1" else 2**meaning.bits - 1)
    if picture.format == "JPEG":
        values = values > 127
    return _png(np.where(values.any(axis=2), np.uint8(255), np.uint8(0)))


def united_mask(one: bytes, other: bytes) -> bytes:
    """What lies inside of either of two masks of one size, as `convert_mask` gives them."""
    parts = (np.asarray(Image.open(io.BytesIO(each))) for each in (one, other))
    return _png(np.maximum(*parts))


def _png(inside: NDArray[np.uint8]) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(inside).save(encoded, "PNG")
    return encoded.getvalue()


def _to_grey(pixels: Image.Image, layout: Layout, depth: Depth) -> tuple[Image.Image, list[Note]]:
    """`pixels` in 8-bit grey, and what there is to say of the bits that they use."""
    meaning = layout.meaning
    if pixels.mode.startswith("I;16"):
        samples = np.asarray(pixels)
        used = bits_in_use(samples, meaning)
        found = eight_bits(samples, meaning, depth)
    else:
        grey = _unmultiplied(pixels).convert("L")
        samples = np.asarray(grey)
        eight = SampleMeaning(8, white_is_zero=meaning.white_is_zero)
        used = bits_in_use(samples, eight)
        if _has_lost_bits(pixels, meaning):
            used = used._replace(bits=8 + used.bits)
            if depth is not None and (used.bits if depth == "in_use" else depth) < meaning.bits:
                raise RefusedError(
                    "16-bit colour that source.bits cannot be applied to", "save it in grey"
                )
            found = eight_bits(samples, eight)
        else:
            found = eight_bits(samples, eight, depth)
    notes = []
    if depth is None and 0 < used.bits < meaning.bits:
        but = f" for all but {_share(used.outside)} of their samples" if used.outside else ""
        notes.append(Note("unused_bits", f"{used.bits} bits of {meaning.bits}{but}"))
    # What lies beyond what the file declares lies beyond a narrower depth, too.
    if clipped := max(found.clipped, layout.clipped):
        notes.append(Note("clipped", f"{_share(clipped)} of their samples"))
    return Image.fromarray(found.pixels), notes


def _share(share: float) -> str:
    """Rounded up, so that many images have the same."""
    limits = (0.001, 0.005, 0.01, MOST_OUTSIDE, 0.05, 0.1, MOST_OF_ONE_VALUE)
    return next(f"{100 * limit:g} %" for limit in limits if share <= limit)


def _has_lost_bits(pixels: Image.Image, meaning: SampleMeaning) -> bool:
    """Whether Pillow kept the upper 8 of 16 bits, as it does of colour and with transparency."""
    return meaning.bits > 8 and pixels.mode not in {"I", "F"} and not pixels.mode.startswith("I;16")


def _unmultiplied(pixels: Image.Image) -> Image.Image:
    """Colours as they are without their transparency, where they were multiplied by it."""
    return pixels.convert({"La": "LA", "RGBa": "RGBA"}.get(pixels.mode, pixels.mode))

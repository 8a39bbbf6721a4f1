"""TIFF files: the one full page, whole or refused, in a form whose meaning leaves no choice."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from data_shards.images.jpeg import refuse_cut_jpeg
from data_shards.images.layout import Layout
from data_shards.images.orientation import Metadata
from data_shards.images.palettes import refuse_missing_colours
from data_shards.images.refusals import damaged, not_read
from data_shards.images.samples import SampleMeaning
from data_shards.images.tiff_tags import Page, one_page, read_pages

_COMPRESSIONS = {
    1: "uncompressed",
    5: "LZW",
    7: "JPEG",
    8: "Deflate",
    32773: "PackBits",
    32946: "Deflate",
    34925: "LZMA",
    50000: "Zstandard",
}
_RAW, _JPEG, _DEFLATE = 1, 7, 8
_PHOTOMETRIC = {
    0: "white is zero",
    1: "black is zero",
    2: "RGB",
    3: "palette",
    4: "mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIE Lab",
}
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_SAMPLE_FORMATS = {1: "unsigned", 2: "signed", 3: "floating point"}
# What Pillow decodes, of unsigned samples: bits by photometric interpretation.
_BITS = {0: {1, 2, 4, 8, 12, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 5: {8, 16}, 6: {8}}
_BITS[1] = _BITS[0] | {32}


@dataclass(frozen=True, slots=True)
class _Kind:
    """What decides how the samples of a page are to be read."""

    compression: int
    photometric: int
    bits: int
    sample_format: int
    samples: int
    planes: int

    def __str__(self) -> str:
        said = (
            f"{self.samples} x {self.bits} bits" if self.samples > 1 else f"{self.bits} bits",
            _SAMPLE_FORMATS.get(self.sample_format, "of unknown format"),
            f"photometric: {_PHOTOMETRIC.get(self.photometric, self.photometric)}",
            _COMPRESSIONS.get(self.compression, f"compression {self.compression}"),
        )
        return ", ".join([*said, *(["in planes"] if self.planes > 1 else [])])


def tiff_layout(data: bytes) -> Layout:
    """What the TIFF `data` holds.

    White-is-zero samples are decoded as they are: `meaning` says how to read them. Raises
    RefusedError for several full-size pages, for strips or tiles that are missing or cut, and for
    layouts that are not read.
    """
    page = one_page(read_pages(data))
    width, height = page.one(256), page.one(257)
    if not (width and height):
        raise damaged("no size")
    kind = _kind(page)
    strips = _strips(data, page, kind)
    tags = {number: page.values[number] for number in _KEPT if page.values.get(number)}
    tags |= {258: (kind.bits,) * kind.samples, 277: (kind.samples,)}
    order = page.order
    if kind.photometric == 0:
        tags[262] = (1,)
    if page.one(266) == 2 and kind.compression != _JPEG:
        strips = [strip.translate(_REVERSED_BITS) for strip in strips]
    if kind.bits == 12:
        # Packed bits have one order; Pillow knows them by this one only.
        order = "<"
    if kind.compression == _RAW and (kind.planes > 1 or 322 in tags):
        # libtiff reads what Pillow's own reader of raw data does not.
        tags[259] = (_DEFLATE,)
        strips = [zlib.compress(strip, 0) for strip in strips]
    colours = 0
    if kind.photometric == 3:
        tags[320], colours = _full_palette(page.values.get(320, ()), 2**kind.bits)
    if 278 in tags:
        tags[278] = (min(height, tags[278][0]),)

    def check(decoded: Image.Image) -> None:
        _refuse_cut(strips, kind, page.tables)
        if kind.photometric == 3:
            refuse_missing_colours(decoded, colours)

    return Layout(
        (width, height),
        SampleMeaning(
            kind.bits if kind.bits > 8 else 8,
            signed=kind.sample_format == 2,
            white_is_zero=kind.photometric == 0,
        ),
        payload=Page(tags, order, tables=page.tables).written(strips),
        check=check,
        metadata=_metadata(page),
        described=str(kind),
    )


# Sizes, samples, colours: what a decoder needs. Neither orientation nor anything about the author.
_KEPT = (256, 257, 259, 262, 278, 284, 317, 320, 322, 323, 338, 339, 530)


def _kind(page: Page) -> _Kind:
    samples = page.one(277, 1)
    bits = page.values.get(258, (1,))
    if len(bits) == 1:
        bits *= samples
    kind = _Kind(
        compression=page.one(259, 1),
        photometric=page.one(262, -1),
        bits=bits[0] if bits else 1,
        sample_format=page.one(339, 1),
        samples=samples,
        planes=samples if page.one(284, 1) == 2 else 1,
    )
    if kind.photometric < 0:
        raise not_read("TIFF", "it does not say whether black or white is zero")
    if kind.compression not in _COMPRESSIONS or kind.photometric not in _BITS:
        raise not_read("TIFF", str(kind))
    if len(set(bits[:samples])) > 1 or len(set(page.values.get(339, (1,)))) > 1:
        raise not_read("TIFF", "channels of several depths")
    # Pixels of uncompressed YCbCr come in groups that Pillow does not know.
    if kind.photometric == 6 and kind.compression != _JPEG:
        raise not_read("TIFF", str(kind))
    grey_of_other_kind = kind.sample_format != 1 and kind.photometric < 2 and samples == 1
    if kind.bits not in _BITS[kind.photometric] and not grey_of_other_kind:
        raise not_read("TIFF", str(kind))
    return kind


def _full_palette(numbers: Sequence[int], needed: int) -> tuple[tuple[int, ...], int]:
    """A colour map of `needed` colours, the missing ones black, and how many there are."""
    colours = len(numbers) // 3
    if not colours or len(numbers) % 3:
        raise damaged("no palette" if not colours else "a palette whose last colour is cut")
    # Of 16 bits; of 8 in old files, whose palette a decoder would take for black.
    scale = 257 if max(numbers) < 256 else 1
    full: list[int] = []
    for channel in range(3):
        here = numbers[channel * colours :][: min(colours, needed)]
        full += [scale * each for each in here] + [0] * (needed - len(here))
    return tuple(full), min(colours, needed)


def _metadata(page: Page) -> Metadata:
    own = [str(each) for each in page.values.get(274, ())]
    if 274 in page.values and not own:
        own = ["of no number"]
    return Metadata(own=own, xmp=[page.xmp] if page.xmp else [])


def _strips(data: bytes, page: Page, kind: _Kind) -> list[bytes]:
    """The strips or tiles. Raises RefusedError for missing ones, and raw ones that are too short.

    Whether compressed ones are too short is for their decoder to say.
    """
    width, height = page.one(256), page.one(257)
    channels = kind.samples if kind.planes == 1 else 1
    if 322 in page.values:
        columns, rows = page.one(322), page.one(323)
        offsets, lengths = page.values.get(324, ()), page.values.get(325, ())
    else:
        columns, rows = width, min(height, page.one(278, height))
        offsets, lengths = page.values.get(273, ()), page.values.get(279, ())
    if not (columns and rows):
        raise damaged("strips of no size")
    down = -(-height // rows)
    needed = -(-width // columns) * down * kind.planes
    if len(offsets) < needed or len(lengths) < needed:
        raise damaged(f"{min(len(offsets), len(lengths))} of {needed} strips")
    row_bytes = -(-columns * channels * kind.bits // 8)
    strips = []
    for number, (offset, length) in enumerate(zip(offsets[:needed], lengths, strict=False)):
        strip = data[offset : offset + length]
        is_last = 322 not in page.values and number % down == down - 1
        rows_here = height - rows * (down - 1) if is_last else rows
        least = row_bytes * rows_here if kind.compression == _RAW else 1
        if len(strip) < max(least, length if kind.compression != _RAW else 0):
            raise damaged(f"strip {number + 1} of {needed} is cut")
        if kind.compression == _RAW and len(strip) >= 2 * row_bytes * rows:
            raise damaged(f"strip {number + 1} of {needed} holds more than its size and bits need")
        strips.append(strip)
    return strips


def _refuse_cut(strips: Sequence[bytes], kind: _Kind, tables: bytes) -> None:
    """What libtiff fills in without an error: the rest of a JPEG."""
    if kind.compression != _JPEG:
        return
    for strip in strips:
        if not strip.startswith(b"\xff\xd8"):
            raise damaged("a strip that is no JPEG")
        # The tables of all strips stand between a start and an end marker.
        refuse_cut_jpeg(strip[:2] + tables[2:-2] + strip[2:])

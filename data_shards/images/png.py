"""PNG files: whole or refused, reduced to what decides the pixels."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from data_shards.images.first_bytes import refuse_picture_behind
from data_shards.images.layout import Layout
from data_shards.images.orientation import Metadata
from data_shards.images.palettes import refuse_missing_colours
from data_shards.images.refusals import RefusedError, damaged
from data_shards.images.samples import SampleMeaning

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">IIBBBBB")
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# First column and row, and steps, of Adam7's passes.
_ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_STEP_BYTES = 1 << 20


def png_layout(data: bytes) -> Layout:
    """What the PNG `data` holds.

    Raises RefusedError where a chunk is missing, cut or does not match its checksum, where there
    are fewer rows than the header says, and for an animation.
    """
    header, palette, pixels, metadata = b"", b"", [], Metadata()
    for name, start, end in _chunks(data):
        payload = data[start:end]
        if (name == b"IHDR") != (not header):
            raise damaged("the header is not the first chunk")
        if name == b"IHDR":
            header = payload
        elif name == b"PLTE":
            if palette or len(payload) % 3:
                raise damaged("two palettes" if palette else "a palette whose last colour is cut")
            palette = payload
        elif name == b"IDAT":
            pixels.append(payload)
        elif name == b"acTL" and len(payload) == 8 and payload[:4] > b"\0\0\0\1":
            number = int.from_bytes(payload[:4], "big")
            raise RefusedError("a file of several pages", "split it", f"{number} pages")
        elif name == b"eXIf":
            metadata.add_exif(payload)
        elif name in (b"tEXt", b"zTXt", b"iTXt"):
            metadata.add_png_text(name, payload)
    if len(header) != _HEADER.size:
        raise damaged("no header of 13 bytes")
    width, height, depth, colour, *_, interlaced = _HEADER.unpack(header)
    if colour not in _CHANNELS or not (width and height):
        raise damaged("a header that makes no sense")

    colours = len(palette) // 3
    if colour == 3 and not colours:
        raise damaged("no palette")

    def check(image: Image.Image) -> None:
        passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
        rows = 0
        for x, y, across, down in passes:
            columns = -(-max(0, width - x) // across)
            row_bytes = -(-columns * depth * _CHANNELS[colour] // 8)
            rows += -(-max(0, height - y) // down) * (1 + row_bytes if columns else 0)
        there = _inflated_bytes(pixels, most=rows + 1)
        if there != rows:
            raise damaged(f"{there:,} bytes of pixels, not {rows:,}")
        if colour == 3:
            refuse_missing_colours(image, colours)

    kept = [(b"IHDR", header), *([(b"PLTE", palette)] if palette else [])]
    kept += [(b"IDAT", payload) for payload in pixels]
    return Layout(
        (width, height),
        SampleMeaning(16 if depth == 16 else 8),
        payload=_SIGNATURE + b"".join(_chunk(*each) for each in (*kept, (b"IEND", b""))),
        check=check,
        metadata=metadata,
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of each chunk's payload, the end chunk left out."""
    place = len(_SIGNATURE)
    while True:
        length = int.from_bytes(data[place : place + 4], "big")
        name, end = data[place + 4 : place + 8], place + 8 + length
        if end + 4 > len(data):
            raise damaged("it ends within a chunk, or without its end chunk")
        if zlib.crc32(data[place + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise damaged(f"checksum of chunk {name.decode('latin-1')!r}")
        if name == b"IEND":
            refuse_picture_behind(data, end + 4)
            return
        yield name, place + 8, end
        place = end + 4


def _chunk(name: bytes, payload: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + payload))
    return struct.pack(">I", len(payload)) + name + payload + checksum


def _inflated_bytes(parts: list[bytes], *, most: int) -> int:
    """How many bytes the stream in `parts` holds, counted up to `most`."""
    stream, count = zlib.decompressobj(), 0
    try:
        for part in parts:
            left = part
            while left and count < most:
                count += len(stream.decompress(left, min(_STEP_BYTES, most - count)))
                left = stream.unconsumed_tail
    except zlib.error as error:
        raise damaged(f"pixels that do not unpack: {error}") from error
    return count

"""Small pictures in layouts that no library writes, each with a known content.

All show the same scene of 64 x 48 px: plain quarters of 0.2, 0.4, 0.6 and 0.8 of full white, so
that the four means of what is stored tell depth, inversion and orientation at once.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_shards.images.conversion import ConvertedImage, convert_image

WIDTH, HEIGHT = 64, 48
QUARTERS = [51, 102, 153, 204]
Samples = NDArray[np.unsignedinteger[Any]]
Pixels = NDArray[np.uint8]
# By number: the values of a TIFF tag.
Tags = Mapping[int, Sequence[int]]
_TYPE_OF_TAG = {254: 4, 273: 4, 279: 4, 324: 4, 325: 4}


def scene(top: int = 255, *, width: int = WIDTH, height: int = HEIGHT) -> Samples:
    """The scene with `top` as full white: 8-bit samples, or 16-bit ones where these are needed."""
    shares = np.kron([[0.2, 0.4], [0.6, 0.8]], np.ones((height // 2, width // 2)))
    samples: Samples = np.rint(shares * top).astype(np.uint8 if top < 256 else np.uint16)
    return samples


def quarters(pixels: NDArray[Any]) -> list[int]:
    """The means of the four quarters, row by row."""
    down, across = pixels.shape[0] // 2, pixels.shape[1] // 2
    halves = pixels[:down], pixels[down:]
    return [round(float(p.mean())) for half in halves for p in (half[:, :across], half[:, across:])]


def packed(samples: Samples, bits: int) -> bytes:
    """`samples` of `bits` each, most significant bit first, every row filled up to bytes."""
    each = (samples.astype(np.uint32)[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(each.reshape(len(samples), -1).astype(np.uint8), axis=1).tobytes()


def grey_tags(bits: int, photometric: int = 1, **size: int) -> dict[int, Sequence[int]]:
    """The tags of a grey page in one strip: `width` and `height` may be others."""
    width, height = size.get("width", WIDTH), size.get("height", HEIGHT)
    page = {256: [width], 257: [height], 258: [bits], 259: [1], 262: [photometric]}
    return {**page, 277: [1], 278: [height]}


def tiff(*pages: tuple[Tags, Sequence[bytes]], order: str = "<") -> bytes:
    """A TIFF of `pages`: the tags of each and its strips (or tiles, with tag 322 among them).

    Bytes make a tag of bytes, or of text where they end with a zero.
    """
    out = bytearray((b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 0))
    link = 4
    for tags, strips in pages:
        offsets = []
        for strip in strips:
            offsets.append(len(out))
            out += strip + b"\0" * (len(strip) % 2)
        places = (324, 325) if 322 in tags else (273, 279)
        entries = {places[0]: offsets, places[1]: [len(each) for each in strips], **tags}
        fields = b""
        for number, values in sorted(entries.items()):
            kind = _TYPE_OF_TAG.get(number, 3)
            if isinstance(values, bytes):
                kind = 2 if values.endswith(b"\0") else 1
            code = {1: "B", 2: "B", 3: "H", 4: "I"}[kind]
            payload = struct.pack(order + code * len(values), *values)
            if len(payload) > 4:
                field = struct.pack(order + "I", len(out))
                out += payload + b"\0" * (len(payload) % 2)
            else:
                field = payload.ljust(4, b"\0")
            fields += struct.pack(order + "HHI", number, kind, len(values)) + field
        out[link : link + 4] = struct.pack(order + "I", len(out))
        out += struct.pack(order + "H", len(entries)) + fields
        link = len(out)
        out += struct.pack(order + "I", 0)
    return bytes(out)


def png(
    *chunks: tuple[bytes, bytes],
    depth: int = 8,
    colour: int = 0,
    interlaced: int = 0,
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> bytes:
    """A PNG of `size`: its header, `chunks` and its end, with right checksums."""
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, interlaced)
    out = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", header), *chunks, (b"IEND", b"")):
        checksum = struct.pack(">I", zlib.crc32(name + data))
        out += struct.pack(">I", len(data)) + name + data + checksum
    return out


def rows(samples: NDArray[Any]) -> tuple[bytes, bytes]:
    """The IDAT chunk of `samples` (height x width, or x channels), no row filtered."""
    wide = samples.astype(samples.dtype.newbyteorder(">"))
    return b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in wide))


def jpeg(pixels: NDArray[np.uint8] | None = None, **options: Any) -> bytes:
    """A JPEG of `pixels`, by default of the scene."""
    out = io.BytesIO()
    options = {"quality": 95} | options
    Image.fromarray(scene() if pixels is None else pixels).save(out, "JPEG", **options)
    return out.getvalue()


def noise(width: int = 128, height: int = 96) -> NDArray[np.uint8]:
    """Pixels that no two blocks share."""
    return np.random.default_rng(0).integers(0, 255, (height, width), dtype=np.uint8)


def stored(path: Path, **options: Any) -> tuple[Pixels, ConvertedImage]:
    """What `convert_image` stores of the file at `path`: its pixels, and all that it says."""
    converted = convert_image(path, longest_side_px=WIDTH, jpeg_quality=100, **options)
    return np.asarray(Image.open(io.BytesIO(converted.jpeg))), converted


def write(folder: Path, name: str, payload: bytes) -> Path:
    """The path of a file that holds `payload`."""
    path = folder / name
    path.write_bytes(payload)
    return path

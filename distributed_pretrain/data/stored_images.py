"""Images and masks of shards decoded, once the size that they declare is the record's.

Before that, a few bytes may ask for any amount of memory.
"""

from __future__ import annotations

import struct

import torch
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

# Frames: baseline, extended, progressive, lossless, and their arithmetic-coded kin.
_JPEG_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})


def decode_stored(payload: bytes | memoryview, *, width: int, height: int) -> Tensor:
    """The grey pixels (height, width), uint8, of a JPEG or PNG.

    Raises ValueError for one of another size and one that is damaged.
    """
    size = declared_size(payload)
    if size != (width, height):
        here, said = ("{} x {}".format(*each) for each in (size, (width, height)))
        raise ValueError(f"has {here} pixels, its record says {said}")
    # A little quicker than Pillow (0.38 against 0.45 ms at 320 px), and strict: it raises on
    # truncated data. The copy is writable, which torch asks for.
    encoded = torch.frombuffer(bytearray(payload), dtype=torch.uint8)
    try:
        pixels: Tensor = decode_image(encoded, ImageReadMode.GRAY)[0]
    except RuntimeError as error:
        raise ValueError(str(error).splitlines()[0]) from error
    return pixels


def declared_size(payload: bytes | memoryview) -> tuple[int, int]:
    """(width, height) in pixels. Raises ValueError where a file declares none."""
    if payload[:8] == b"\x89PNG\r\n\x1a\n" and len(payload) >= 24:
        width, height = struct.unpack_from(">II", payload, 16)
        return width, height
    at = 2 if payload[:2] == b"\xff\xd8" else len(payload)
    while at + 9 <= len(payload) and payload[at] == 0xFF:
        length, _, height, width = struct.unpack_from(">HBHH", payload, at + 2)
        if payload[at + 1] in _JPEG_FRAMES:
            return width, height
        at += 2 + length
    raise ValueError("neither JPEG nor PNG, or without a size")

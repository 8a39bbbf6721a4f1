"""The size that a JPEG declares, before any of the memory is taken that it asks for."""

from __future__ import annotations

import struct

# Frames: baseline, extended, progressive, lossless, and their arithmetic-coded kin.
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})


def jpeg_size(payload: bytes) -> tuple[int, int]:
    """(width, height) in pixels. Raises ValueError where no frame is declared."""
    at = 2 if payload.startswith(b"\xff\xd8") else len(payload)
    while at + 9 <= len(payload) and payload[at] == 0xFF:
        length, _, height, width = struct.unpack_from(">HBHH", payload, at + 2)
        if payload[at + 1] in _FRAMES:
            return width, height
        at += 2 + length
    raise ValueError("no JPEG that declares its size")

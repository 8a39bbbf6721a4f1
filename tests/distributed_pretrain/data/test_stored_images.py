import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from distributed_pretrain.data.stored_images import declared_size, decode_stored

PIXELS = np.random.default_rng(0).integers(0, 255, (30, 50), dtype=np.uint8)


def encoded(kind: str, **options: bool) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {})]
)
def test_the_size_is_read_before_the_pixels(kind: str, options: dict[str, bool]) -> None:
    payload = encoded(kind, **options)
    assert declared_size(payload) == (50, 30)
    pixels = decode_stored(payload, width=50, height=30).numpy()
    with Image.open(io.BytesIO(payload)) as image:
        assert np.abs(np.asarray(image).astype(int) - pixels).max() <= 1
    with pytest.raises(ValueError, match="has 50 x 30 pixels, its record says 30 x 50"):
        decode_stored(payload, width=30, height=50)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_whatever_is_cut_is_a_value_error(kind: str) -> None:
    payload = encoded(kind)
    for length in (0, 1, 2, 3, 10, 24, 100, len(payload) // 2, len(payload) - 30):
        with pytest.raises(ValueError, match=r"\w"):
            decode_stored(payload[:length], width=50, height=30)


def test_an_image_that_asks_for_all_memory_is_refused_by_its_size() -> None:
    header = struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    png = (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )
    jpeg = bytearray(encoded("JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    for payload in (png, bytes(jpeg)):
        with pytest.raises(ValueError, match="its record says 50 x 30"):
            decode_stored(payload, width=50, height=30)

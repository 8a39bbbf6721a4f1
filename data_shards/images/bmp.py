"""BMP files: their size and palette; what is cut their decoder refuses."""

from __future__ import annotations

import struct

from data_shards.images.layout import Layout
from data_shards.images.palettes import refuse_missing_colours
from data_shards.images.refusals import damaged, not_read
from data_shards.images.samples import SampleMeaning

_FILE_HEADER_BYTES, _OLD_HEADER_BYTES = 14, 12
_BITS = {1, 4, 8, 16, 24, 32}
# None, and colours by masks. Runs of pixels (1, 2) may leave some out, which a decoder fills in;
# others hold a JPEG or PNG.
_COMPRESSIONS = {0, 3}


def bmp_layout(data: bytes) -> Layout:
    """What the BMP `data` holds. Raises RefusedError for one without a size."""
    try:
        (header_bytes,) = struct.unpack_from("<I", data, 14)
        fields = "<HHHH" if header_bytes == _OLD_HEADER_BYTES else "<iiHHI"
        width, height, _, bits, *compression = struct.unpack_from(fields, data, 18)
    except struct.error as error:
        raise damaged("its header is cut") from error
    if not (width and height):
        raise damaged("no size")
    described = ", compression ".join(map(str, (f"{bits} bits", *compression)))
    if bits not in _BITS or not _COMPRESSIONS.issuperset(compression):
        raise not_read("BMP", described)
    payload, colours = data, 2**24
    if bits <= 8:
        payload, colours = _with_full_palette(data, header_bytes, bits)
    return Layout(
        (abs(width), abs(height)),
        SampleMeaning(8),
        payload,
        check=lambda decoded: refuse_missing_colours(decoded, colours),
        described=described,
    )


def _with_full_palette(data: bytes, header_bytes: int, bits: int) -> tuple[bytes, int]:
    """The file with 2^bits colours, the missing ones black, and how many it has itself.

    A decoder would take pixels for the colours that it misses, and pixels of 8 bits for those of 1
    where there are two colours.
    """
    start = _FILE_HEADER_BYTES + header_bytes
    (pixels,) = struct.unpack_from("<I", data, 10)
    entry_bytes, colours = 3, 2**bits
    if header_bytes != _OLD_HEADER_BYTES:
        entry_bytes = 4
        (used,) = struct.unpack_from("<I", data, _FILE_HEADER_BYTES + 32)
        colours = min(used or colours, colours)
        data = data[: _FILE_HEADER_BYTES + 32] + b"\0" * 4 + data[_FILE_HEADER_BYTES + 36 :]
    if pixels > start:
        colours = min(colours, (pixels - start) // entry_bytes)
    else:
        pixels = start + colours * entry_bytes
    palette = data[start : start + colours * entry_bytes].ljust(2**bits * entry_bytes, b"\0")
    colour_of = (palette[at : at + 3] for at in range(0, len(palette), entry_bytes))
    if bits == 4 and all(each == bytes([n] * 3) for n, each in enumerate(colour_of)):
        raise not_read("BMP", "4 bits, a palette of the grey levels 0 to 15")
    end = struct.pack("<I", start + len(palette))
    return data[:10] + end + data[14:start] + palette + data[pixels:], colours

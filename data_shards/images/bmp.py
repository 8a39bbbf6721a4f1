"""BMP files: their size; what is cut their decoder refuses."""

from __future__ import annotations

import struct

from data_shards.images.layout import Layout
from data_shards.images.refusals import damaged, not_read
from data_shards.images.samples import SampleMeaning

_OLD_HEADER_BYTES = 12
_BITS = {1, 4, 8, 16, 24, 32}
# None, run lengths of 8 and 4 bits, and colours by masks. Others hold a JPEG or PNG.
_COMPRESSIONS = {0, 1, 2, 3}


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
    return Layout(
        (abs(width), abs(height)),
        SampleMeaning(8),
        data,
        check=lambda _: None,
        described=described,
    )

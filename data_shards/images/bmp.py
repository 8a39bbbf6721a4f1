"""BMP files: their size; what is cut their decoder refuses."""

from __future__ import annotations

import struct

from data_shards.images.layout import Layout
from data_shards.images.refusals import damaged
from data_shards.images.samples import SampleMeaning

_OLD_HEADER_BYTES = 12


def bmp_layout(data: bytes) -> Layout:
    """What the BMP `data` holds. Raises RefusedError for one without a size."""
    try:
        (header_bytes,) = struct.unpack_from("<I", data, 14)
        sides = "<HH" if header_bytes == _OLD_HEADER_BYTES else "<ii"
        width, height = map(abs, struct.unpack_from(sides, data, 18))
    except struct.error as error:
        raise damaged("its header is cut") from error
    if not (width and height):
        raise damaged("no size")
    return Layout((width, height), SampleMeaning(8), data, check=lambda _: None, orientation=1)

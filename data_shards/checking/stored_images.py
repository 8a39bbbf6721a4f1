"""Images and masks as shards hold them, decoded without trusting them."""

from __future__ import annotations

import io

from PIL import Image

from data_shards.images.layout import Size
from data_shards.images.refusals import UNDECODABLE

# Also what an image asks for that is made to mislead.
NOT_DECODED = (*UNDECODABLE, MemoryError)


def decoded_image(payload: bytes, size: Size | None) -> Image.Image:
    """The 8-bit grey image of a member, decoded if it has the `size` that its record says.

    Of another size it is not: the memory that it asks for may be any. Raises what `NOT_DECODED`
    lists.
    """
    image = Image.open(io.BytesIO(payload), formats=("JPEG", "PNG"))
    if size in (None, image.size):
        image.load()
    if image.mode != "L":
        raise ValueError(f"pixels of mode {image.mode}, not 8-bit grey")
    return image

"""What the file of an image declares, before a pixel is decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from PIL import Image

from data_shards.images.samples import SampleMeaning

# Width and height in pixels.
Size: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Layout:
    """The one picture of a file, as it lies there: `size` is before it is turned upright.

    `payload` is what to decode. `check` takes what was decoded and raises RefusedError where pixels
    are missing that the decoder filled in. `orientation` is that of the format's own tag, by EXIF's
    numbers; None where EXIF itself has to tell. `described` names the layout, for formats that have
    more of them than are read.
    """

    size: Size
    meaning: SampleMeaning
    payload: bytes
    check: Callable[[Image.Image], None]
    orientation: int | None = None
    described: str = ""

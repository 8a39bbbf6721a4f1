"""What the file of an image declares, before a pixel is decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from PIL import Image

from data_shards.images.orientation import Metadata
from data_shards.images.samples import SampleMeaning

MOST_PIXELS = 178_956_970
# Width and height in pixels.
Size: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Layout:
    """The one picture of a file, as it lies there: `size` is before it is turned upright.

    `payload` is what to decode, unless that is done: `picture`; `clipped` is the share
    of its samples that lay beyond what the file declares. `check` takes what was decoded and
    raises RefusedError where pixels are missing that the decoder filled in. `metadata` may say how
    the picture lies. `described` names the layout, for formats that have more of them than are
    read.
    """

    size: Size
    meaning: SampleMeaning
    payload: bytes
    check: Callable[[Image.Image], None]
    metadata: Metadata = field(default_factory=Metadata)
    described: str = ""
    picture: Image.Image | None = None
    clipped: float = 0.0

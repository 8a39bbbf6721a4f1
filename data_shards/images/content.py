"""What can be seen in stored images: sums for the statistics, and whether there is anything."""

from __future__ import annotations

import io
from itertools import accumulate
from typing import NamedTuple

from PIL import Image

from data_shards.images.notes import Note
from data_shards.records.manifest import PixelSums

# An eighth of all grey levels: no radiograph gets by with fewer for nearly all of its pixels.
FEWEST_LEVELS = 32
# A marker or a hot pixel makes no picture.
LEFT_ASIDE = 0.005
SMALLEST_SIDE_PX = 16


class StoredContent(NamedTuple):
    """The pixels of a stored image, summed up, and what there is to say of it."""

    sums: PixelSums
    notes: tuple[Note, ...]


def mask_notes(png: bytes) -> tuple[Note, ...]:
    """What there is to say of a stored mask."""
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        lowest, highest = image.getextrema()
    if lowest != highest:
        return ()
    return (Note("plain_mask", "all inside" if highest else "nothing inside"),)


def look_at(jpeg: bytes) -> StoredContent:
    """What a grey JPEG decodes to: what training will see. Its sums are exact."""
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
        histogram = image.histogram()
        size = image.size
    share = [count / sum(histogram) for count in accumulate(histogram)]
    darkest = next(level for level, below in enumerate(share) if below > LEFT_ASIDE)
    brightest = next(level for level, below in enumerate(share) if below >= 1 - LEFT_ASIDE)
    notes = []
    if brightest - darkest < FEWEST_LEVELS:
        notes.append(Note("plain", f"grey levels {darkest} to {brightest}"))
    if min(size) < SMALLEST_SIDE_PX:
        notes.append(Note("small", f"{size[0]} x {size[1]} px"))
    sums = PixelSums(
        count=sum(histogram),
        total=sum(value * count for value, count in enumerate(histogram)),
        total_of_squares=sum(value * value * count for value, count in enumerate(histogram)),
    )
    return StoredContent(sums, tuple(notes))

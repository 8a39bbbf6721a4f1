"""Boxes and masks as tables give them: numbers in cells, a row a box, masks drawn from numbers."""

from __future__ import annotations

import io
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from data_shards.errors import InputError
from data_shards.records.study import Box
from data_shards.sources.formats.tables import Row
from data_shards.sources.image_row import ImageRow

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class DrawnMask:
    """A mask that a table tells in numbers, as an `ImageFile`: a PNG of what `draw` gives.

    `draw` gives the mask with rows and columns, non-zero inside. It must be a function of a module
    (or a partial of one), so that other processes can call it; `told` is where the numbers stand.
    """

    told: str
    draw: Callable[[], NDArray[np.uint8]]

    def __str__(self) -> str:
        return self.told

    def stat(self) -> os.stat_result:
        """That of a plain file of no size: there is none on disk."""
        return os.stat_result((stat.S_IFREG, *(0,) * 9))

    def read_bytes(self) -> bytes:
        """The drawn mask as a PNG of 0 and 255."""
        # What draws is not needed to read a profile.
        import numpy as np
        from PIL import Image

        encoded = io.BytesIO()
        inside = np.where(self.draw() != 0, np.uint8(255), np.uint8(0))
        Image.fromarray(inside).save(encoded, "PNG", compress_level=1)
        return encoded.getvalue()


def box_in(
    row: Row, columns: Sequence[str], category: str, *, phrase: str = "", image: int = 0
) -> Box | None:
    """The box in the cells x, y, width and height; None where all four are empty.

    Raises InputError, with the line, for a cell that is no number, and for a box without area.
    """
    cells = [row[column] for column in columns]
    if not any(cells):
        return None
    return box_of(row.where, dict(zip(columns, cells, strict=True)), category, phrase, image)


def box_of(
    where: str, cells: dict[str, str], category: str, phrase: str = "", image: int = 0
) -> Box:
    """The box that four texts say (x, y, width, height in pixels, by the names of their columns).

    Raises InputError for what is no number, and for a box without an area.
    """
    numbers = [number_in(where, column, cell) for column, cell in cells.items()]
    x, y, width, height = numbers
    if not (width > 0 and height > 0):
        raise InputError(
            f"{where}: a box of {width:g} x {height:g} pixels at {x:g}, {y:g}: correct or remove it"
        )
    return Box(image, x, y, width, height, category, phrase)


def number_in(where: str, column: str, cell: str) -> float:
    """A number. Raises InputError for any other text, infinity and NaN among them."""
    try:
        # Python takes 1_0 for ten.
        number = math.nan if "_" in cell else float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{where}: column {column!r} is {cell!r}: a number is wanted: correct it")
    return number


def joined_by_image(rows: Iterable[ImageRow]) -> Iterator[ImageRow]:
    """A row an image from rows of a box each, in the order of the first ones.

    Rows are joined that say the same but for their boxes and masks (several masks of a category are
    parts of one); one that says something else of the image stays by itself, to be refused as any
    image that is listed twice.
    """
    first: dict[str, ImageRow] = {}
    others: list[ImageRow] = []
    for row in rows:
        known = first.setdefault(row.image_id, row)
        if known is row:
            continue
        bare = replace(row, line=known.line, boxes=known.boxes, masks=known.masks)
        if bare != known:
            others.append(row)
            continue
        files = {mask[:2] for mask in known.masks}
        masks = tuple(mask for mask in row.masks if mask[:2] not in files)
        boxes = tuple(box for box in row.boxes if box not in known.boxes)
        first[row.image_id] = replace(known, boxes=known.boxes + boxes, masks=known.masks + masks)
    yield from first.values()
    yield from others

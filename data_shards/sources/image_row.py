"""One image as a table lists it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, NamedTuple

from data_shards.records.study import Box, ImageFile, Split


class ListedMask(NamedTuple):
    """A mask's category and file, and where a table names it."""

    category: str
    file: ImageFile
    listed: str = ""


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image as a table lists it in `line`, and what that line says of the whole study.

    `table` is the file of that line, or empty for the source's first; line 0: a file that is one
    row. `path` is the file's; `view` is as the table spells it. `texts` are the report's sections
    by name, or all of it as "report"; None where the table holds no reports. `boxes` are in pixels
    of the image, which has `size_px` (width, height) where a table says so.
    """

    line: int
    image_id: str
    path: str
    patient_id: str
    study_id: str
    view: str
    split: Split | None = None
    texts: Mapping[str, str] | None = None
    labels: Mapping[str, float | None] | None = None
    boxes: tuple[Box, ...] = ()
    masks: tuple[ListedMask, ...] = ()
    table: str = ""
    size_px: tuple[int, int] | None = None

    @property
    def place(self) -> str:
        """The line, or the name of a file that is one row."""
        return f"line {self.line}" if self.line else PurePath(self.table).name

    def place_beside(self, other: ImageRow) -> str:
        """`place`, with the table's name where that is another than `other`'s."""
        is_other = self.line and self.table != other.table
        return f"{self.place} of {PurePath(self.table).name}" if is_other else self.place

    @property
    def of_study(self) -> tuple[Any, ...]:
        """What the row says of its whole study."""
        return self.split, self.texts, self.labels

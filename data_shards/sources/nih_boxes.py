"""NIH ChestX-ray8's images with boxes: 984 boxes of eight findings on 880 images.

<root>/images_001/images/00000001_000.png ...     patient, and number of the visit
<root>/BBox_List_2017.csv                         Image Index,Finding Label,Bbox [x,y,w,h],,,
<root>/Data_Entry_2017_v2020.csv (or Data_Entry_2017.csv), <root>/test_list.txt
                                                  for images without a finding, and for views
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field

from data_shards.errors import InputError
from data_shards.records.study import Box
from data_shards.sources.annotations import box_in
from data_shards.sources.base import Source, SourceConfig
from data_shards.sources.formats.table_files import open_table
from data_shards.sources.formats.tables import Row, read_rows
from data_shards.sources.image_files import files_by_stem, placed
from data_shards.sources.image_row import ImageRow
from data_shards.sources.values import VIEWS

BOXES_NAME = "BBox_List_2017.csv"
# Of several releases the latest, which comes first here.
ENTRIES_NAMES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
TEST_LIST_NAME = "test_list.txt"
# The header has commas in it: the last four columns are those of its names that have a number.
BOX_COLUMNS = ("Bbox [x", "y", "w", "h]")
FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltrate",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
)
NO_FINDING = "No Finding"


class NihBoxesConfig(SourceConfig):
    """`root` holds the tables and the folders of images.

    `no_finding_images` adds that many images without a finding from the official test list, as LoVT
    has 100, drawn by `no_finding_seed`. Without Data_Entry_2017.csv (or that of v2020, which
    counts if both are there) no view is known, and all count as PA.
    """

    name: Literal["nih_boxes"] = "nih_boxes"
    licence: str = "NIH Clinical Center, public"
    root: Path
    no_finding_images: int = Field(default=0, ge=0)
    no_finding_seed: int = 0

    def open(self) -> NihBoxesSource:
        """The images with boxes, and those without a finding that were asked for."""
        return NihBoxesSource(self)


class NihBoxesSource(Source):
    """One study an image; the patient is the first part of its name.

    Labels are 1 for the findings with a box; of an image without a finding all eight are 0. What an
    image with boxes has beside them is not said, so its other labels are unknown.
    """

    config: NihBoxesConfig
    views = VIEWS
    images_placed_by = "source.root"

    def tables(self) -> Sequence[Path]:
        """Boxes, and the entries and the test list where they are there."""
        root = self.config.root
        boxes = next(
            (path for path in (root / BOXES_NAME, root / f"{BOXES_NAME}.gz") if path.is_file()),
            root / BOXES_NAME,
        )
        more = (self._entries_path, root / TEST_LIST_NAME)
        return (boxes, *(path for path in more if path.is_file()))

    def rows(self) -> Iterator[ImageRow]:
        """An image a row. Raises InputError for a box of another finding than the eight."""
        lines: dict[str, list[Row]] = defaultdict(list)
        for row in read_rows(self.tables()[0], ("Image Index", "Finding Label", *BOX_COLUMNS)):
            lines[row.filled("Image Index")].append(row)
        for name, rows in lines.items():
            boxes = []
            for row in rows:
                finding = row["Finding Label"]
                if finding not in FINDINGS:
                    expected = ", ".join(FINDINGS)
                    raise InputError(
                        f"{row.where}: Finding Label {finding!r}: expected {expected}: correct it"
                    )
                box = box_in(row, BOX_COLUMNS, finding)
                if box is None:
                    raise InputError(f"{row.where}: image {name} has no box: fetch the table again")
                boxes += [box]
            labels: dict[str, float | None] = dict.fromkeys(FINDINGS)
            labels |= {box.category: 1.0 for box in boxes} | {NO_FINDING: 0.0}
            # A box that is listed twice is one.
            yield self._row(rows[0], name, labels, tuple(dict.fromkeys(boxes)))
        yield from self._without_a_finding()

    def _row(
        self,
        row: Row,
        name: str,
        labels: dict[str, float | None],
        boxes: tuple[Box, ...] = (),
    ) -> ImageRow:
        stem = Path(name).stem
        return ImageRow(
            row.line,
            stem,
            placed(stem, self._files, self.config.root, ".png"),
            patient_id=stem.partition("_")[0],
            study_id=stem,
            view=self._view_of(name, row),
            labels=labels,
            boxes=boxes,
            table=str(row.path),
        )

    def _view_of(self, name: str, row: Row) -> str:
        if self._views and name not in self._views:
            raise InputError(
                f"{row.where}: image {name} is not in {self._entries_path.name}: fetch "
                "both tables again, or take that one away"
            )
        return self._views.get(name, "FRONTAL")

    def _without_a_finding(self) -> Iterator[ImageRow]:
        wanted = self.config.no_finding_images
        if not wanted:
            return
        for path in (self._entries_path, self.config.root / TEST_LIST_NAME):
            if not path.is_file():
                raise InputError(
                    f"{path}: no such file, out of which "
                    f"source.no_finding_images={wanted:,} would be drawn: fetch it, or set "
                    "source.no_finding_images=0"
                )
        free = [
            row
            for row in self._entries
            if row["Finding Labels"] == NO_FINDING and row["Image Index"] in self._test_list
        ]
        if len(free) < wanted:
            raise InputError(
                f"{self._entries_path}: {len(free):,} images of {TEST_LIST_NAME} are "
                f"without a finding, and source.no_finding_images={wanted:,}: ask for fewer"
            )
        seed = self.config.no_finding_seed
        free.sort(key=lambda row: hashlib.sha256(f"{seed}/{row['Image Index']}".encode()).digest())
        for row in free[:wanted]:
            labels: dict[str, float | None] = {**dict.fromkeys(FINDINGS, 0.0), NO_FINDING: 1.0}
            yield self._row(row, row["Image Index"], labels)

    @cached_property
    def _files(self) -> dict[str, Path]:
        return files_by_stem([self.config.root], frozenset({".png"}))

    @property
    def _entries_path(self) -> Path:
        paths = [self.config.root / name for name in ENTRIES_NAMES]
        return next((path for path in paths if path.is_file()), paths[-1])

    @cached_property
    def _entries(self) -> list[Row]:
        """One an image; a row that is there twice is one."""
        rows: dict[str, Row] = {}
        for row in read_rows(
            self._entries_path, ("Image Index", "Finding Labels", "View Position")
        ):
            first = rows.setdefault(row.filled("Image Index"), row)
            if first.cells != row.cells:
                raise InputError(
                    f"{row.where}: image {row['Image Index']} says other than in line "
                    f"{first.line}: keep one of them"
                )
        return list(rows.values())

    @cached_property
    def _views(self) -> dict[str, str]:
        if not self._entries_path.is_file():
            return {}
        return {row["Image Index"]: row["View Position"] for row in self._entries}

    @cached_property
    def _test_list(self) -> frozenset[str]:
        with open_table(self.config.root / TEST_LIST_NAME, None) as file:
            return frozenset(file.read().split())

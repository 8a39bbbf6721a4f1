"""Any table of images with reports, labels, boxes or masks: CSV, TSV, JSON lines or Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from data_shards.errors import InputError
from data_shards.profiles import Config
from data_shards.records.study import Box, View
from data_shards.report_text.section_names import refuse_unknown_section, spelled
from data_shards.sources.annotations import box_in, joined_by_image
from data_shards.sources.base import Source, SourceConfig
from data_shards.sources.formats.cells import text_in
from data_shards.sources.formats.tables import Row, read_rows
from data_shards.sources.grouping import folded, no_report
from data_shards.sources.image_paths import image_path
from data_shards.sources.image_row import ImageRow, ListedMask
from data_shards.sources.values import VIEWS, label_in, split_in


class BoxColumns(Config):
    """Columns of one box a row: upper left corner and size, in pixels of the image.

    Rows of an image may be several, which are joined; four empty cells are no box. Its category is
    the cell of `category`, or `category_name` for all.
    """

    x: str = "x"
    y: str = "y"
    width: str = "width"
    height: str = "height"
    category: str | None = None
    category_name: str | None = None
    phrase: str | None = None

    @model_validator(mode="after")
    def _check(self) -> BoxColumns:
        if (self.category is None) == (self.category_name is None):
            raise ValueError("name the column category, or one category_name for all boxes")
        return self


class CsvColumns(Config):
    """Names of the table's columns; None: the table has no such column.

    The text is one `report` column, or `findings`, `impression` or both; a table of `labels`,
    `masks` or `box` may have none. Without `study_id` every row is a study, named by its image's
    whole path; without `split` the builder draws by patient. A column of `labels` holds 1, 0, -1
    (uncertain) or nothing, and its name is the label's; one of `masks` the path of the mask of a
    category, or nothing.
    """

    image: str = "image"
    report: str | None = None
    findings: str | None = None
    impression: str | None = None
    patient_id: str = "patient_id"
    study_id: str | None = None
    view: str | None = None
    split: str | None = None
    labels: tuple[str, ...] = ()
    masks: dict[str, str] = Field(default_factory=dict)
    box: BoxColumns | None = None

    @model_validator(mode="after")
    def _check(self) -> CsvColumns:
        has_parts = self.findings is not None or self.impression is not None
        if self.report is not None and has_parts:
            raise ValueError("name either the report column, or findings and impression")
        if not (self.report is not None or has_parts or self.is_labelled):
            raise ValueError(
                "name either the report column, or findings and impression (a table of labels, "
                "masks or box needs none)"
            )
        if self.findings is not None and self.findings == self.impression:
            raise ValueError(f"findings and impression are both {self.findings!r}: name one")
        return self

    @property
    def is_labelled(self) -> bool:
        """Whether there is more than a report."""
        return bool(self.labels or self.masks or self.box)

    @property
    def texts(self) -> dict[str, str]:
        """The columns of the report by what they hold."""
        named = {name: getattr(self, name) for name in ("report", "findings", "impression")}
        return {name: column for name, column in named.items() if column is not None}

    @property
    def used(self) -> tuple[str, ...]:
        """Every column that the table must have."""
        texts, own = self.texts.values(), (self.patient_id, self.study_id, self.view, self.split)
        box = self.box or BoxColumns(category_name="")
        of_box = (box.x, box.y, box.width, box.height, box.category, box.phrase)
        more = (*self.labels, *self.masks.values(), *(of_box if self.box else ()))
        return tuple(filter(None, (self.image, *texts, *own, *more)))


class CsvPairsConfig(SourceConfig):
    """A table, the folder its image paths start from, and what its columns mean.

    `where` keeps the rows whose column has one of the values listed; '' is an empty cell.
    `default_view` is the view of images whose cell is empty or that have no view column. Masks lie
    below `mask_root`, by default below `image_root`.
    `encoding` is that of a table without a mark (a Python codec's name). `section_names` says which
    section a header of the reports opens that is not known, or means something else here
    ("tomography": "findings").
    """

    name: Literal["csv_pairs"] = "csv_pairs"
    licence: str = "unknown"
    table: Path
    image_root: Path
    mask_root: Path | None = None
    columns: CsvColumns
    where: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    default_view: View | None = None
    section_names: dict[str, Annotated[str, AfterValidator(refuse_unknown_section)]] = Field(
        default_factory=dict
    )
    encoding: str = "utf-8"

    @model_validator(mode="after")
    def _check(self) -> CsvPairsConfig:
        if self.columns.view is None and self.default_view is None:
            raise ValueError("name columns.view, or set default_view for a table without views")
        try:
            "x".encode(self.encoding)
        except (LookupError, ValueError) as error:
            raise ValueError(f"encoding={self.encoding}: Python knows no such text") from error
        return self

    def open(self) -> CsvPairsSource:
        """The studies of the table."""
        return CsvPairsSource(self)


class CsvPairsSource(Source):
    """The studies of the rows that pass `where`."""

    config: CsvPairsConfig
    views = VIEWS
    study_ids_are_unique = False
    images_placed_by = "source.image_root"
    narrowed_by = ", or leave it out by source.where"
    # Rows whose value is one of `where`, but for case, decimals, zeros or width.
    near_misses = 0

    @property
    def section_names(self) -> dict[str, str]:
        """The profile's headers, spelled as headers are compared."""
        return {spelled(header): name for header, name in self.config.section_names.items()}

    def warnings(self) -> Sequence[str]:
        """Those of all tables, and how many rows a spelling leaves out."""
        of_the_table = super().warnings()
        if not self.near_misses:
            return of_the_table
        return (
            *of_the_table,
            f"{self.near_misses:,} x a row left out by source.where for the spelling of its value "
            "alone (case, decimals, zeros or width): add that spelling if it is meant",
        )

    def tables(self) -> Sequence[Path]:
        """The one table."""
        return (self.config.table,)

    def rows(self) -> Iterator[ImageRow]:
        """The rows that pass `where`; raises InputError when there is none."""
        config, columns = self.config, self.config.columns
        required = (*columns.used, *config.where)
        rows = list(read_rows(config.table, required, config.encoding))
        where = {column: set(map(text_in, values)) for column, values in config.where.items()}
        alike = {column: set(map(folded, values)) for column, values in where.items()}
        passed = [row for row in rows if all(row[each] in where[each] for each in where)]
        near = [row for row in rows if all(folded(row[each]) in alike[each] for each in where)]
        if not passed:
            seen = f" (line {near[0].line} has the same in another spelling)" if near else ""
            raise InputError(
                f"{config.table}: none of {len(rows)} rows passes source.where={config.where}: "
                f"check its columns and values{seen}"
            )
        self.near_misses = len(near) - len(passed)
        every = map(self._row, passed)
        return joined_by_image(every) if columns.box else every

    def _row(self, row: Row) -> ImageRow:
        config, columns = self.config, self.config.columns
        path = image_path(row, columns.image, config.image_root)
        texts = {name: row.text(column) for name, column in columns.texts.items()}
        # No other row can have it: told here, in the order of the lines.
        is_study = columns.study_id is None
        if is_study and config.bad_reports == "stop" and texts and not any(texts.values()):
            raise no_report(row.where, path.id)
        return ImageRow(
            row.line,
            path.id,
            str(path.file),
            patient_id=row.filled(columns.patient_id),
            study_id=row.filled(columns.study_id) if columns.study_id else path.id,
            view=(row[columns.view] if columns.view else "") or config.default_view or "",
            split=split_in(row, columns.split) if columns.split else None,
            texts=texts or None,
            labels={name: label_in(row, name) for name in columns.labels} or None,
            boxes=self._boxes(row),
            masks=tuple(
                ListedMask(
                    category,
                    image_path(row, column, config.mask_root or config.image_root).file,
                    f"{row.where}: mask in column {column!r}",
                )
                for category, column in columns.masks.items()
                if row[column]
            ),
        )

    def _boxes(self, row: Row) -> tuple[Box, ...]:
        columns = self.config.columns.box
        if columns is None:
            return ()
        category = columns.category_name or ""
        places = (columns.x, columns.y, columns.width, columns.height)
        if columns.category is not None and any(row[each] for each in places):
            category = row.filled(columns.category)
        phrase = row[columns.phrase] if columns.phrase else ""
        box = box_in(row, places, category, phrase=phrase)
        return () if box is None else (box,)

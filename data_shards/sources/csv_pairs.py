"""Any table that pairs images with reports: CSV, TSV or JSON lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from data_shards.errors import InputError
from data_shards.profiles import Config
from data_shards.records.study import View
from data_shards.report_text.section_names import refuse_unknown_section, spelled
from data_shards.sources.base import VIEWS, ImageRow, Source, SourceConfig, split_in
from data_shards.sources.formats.cells import text_in
from data_shards.sources.formats.tables import read_rows
from data_shards.sources.grouping import folded, no_report
from data_shards.sources.image_paths import image_path


class CsvColumns(Config):
    """Names of the table's columns; None: the table has no such column.

    The text is one `report` column, or `findings`, `impression` or both. Without `study_id`
    every row is a study, named by its image's whole path; without `split` the builder draws by
    patient.
    """

    image: str = "image"
    report: str | None = None
    findings: str | None = None
    impression: str | None = None
    patient_id: str = "patient_id"
    study_id: str | None = None
    view: str | None = None
    split: str | None = None

    @model_validator(mode="after")
    def _check(self) -> CsvColumns:
        if (self.report is None) == (self.findings is None and self.impression is None):
            raise ValueError("name either the report column, or findings and impression")
        if self.findings is not None and self.findings == self.impression:
            raise ValueError(f"findings and impression are both {self.findings!r}: name one")
        return self


class CsvPairsConfig(SourceConfig):
    """A table, the folder its image paths start from, and what its columns mean.

    `where` keeps the rows whose column has one of the values listed; '' is an empty cell.
    `default_view` is the view of images whose cell is empty or that have no view column.
    `encoding` is that of a table without a mark (a Python codec's name). `section_names` says which
    section a header of the reports opens that is not known, or means something else here
    ("tomography": "findings").
    """

    name: Literal["csv_pairs"] = "csv_pairs"
    licence: str = "unknown"
    table: Path
    image_root: Path
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
        used = filter(None, columns.model_dump().values())
        rows = list(read_rows(config.table, (*used, *config.where), config.encoding))
        if not rows:
            raise InputError(f"{config.table}: no row below its header: check the table")
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
        for row in passed:
            path = image_path(row, columns.image, config.image_root)
            texts = {
                name: row.text(column)
                for name in ("report", "findings", "impression")
                if (column := getattr(columns, name)) is not None
            }
            # No other row can have it: told here, in the order of the lines.
            is_study = columns.study_id is None
            if is_study and config.bad_reports == "stop" and not any(texts.values()):
                raise no_report(row.where, path.id)
            yield ImageRow(
                row.line,
                path.id,
                str(path.file),
                patient_id=row.filled(columns.patient_id),
                study_id=row.filled(columns.study_id) if columns.study_id else path.id,
                view=(row[columns.view] if columns.view else "") or config.default_view or "",
                split=split_in(row, columns.split) if columns.split else None,
                texts=texts,
            )

"""Any table that pairs images with reports: CSV, TSV or JSON lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from data_shards.errors import InputError
from data_shards.profiles import Config
from data_shards.records.study import View
from data_shards.report_text.section_names import refuse_unknown_section, spelled
from data_shards.sources.base import ImageRow, Source, SourceConfig, split_in
from data_shards.sources.formats.tables import read_rows

# A "frontal" of unknown direction counts as PA, the usual one: methods only tell frontal from
# lateral.
VIEWS: dict[str, View] = {
    **dict.fromkeys(("PA", "FRONTAL"), "PA"),
    **dict.fromkeys(("AP", "AP SUPINE", "AP ERECT"), "AP"),
    **dict.fromkeys(("L", "LATERAL", "LL", "RL"), "L"),
}


class CsvColumns(Config):
    """Names of the table's columns; None: the table has no such column.

    The text is one `report` column, or `findings`, `impression` or both. Without `study_id`
    every row is a study, named by its image; without `split` the builder draws by patient.
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
        return self


class CsvPairsConfig(SourceConfig):
    """A table, the folder its image paths start from, and what its columns mean.

    `where` keeps the rows whose column has one of the values listed. `default_view` is the
    view of images whose cell is empty or that have no view column. `section_names` says which
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

    @model_validator(mode="after")
    def _check(self) -> CsvPairsConfig:
        if self.columns.view is None and self.default_view is None:
            raise ValueError("name columns.view, or set default_view for a table without views")
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

    @property
    def section_names(self) -> dict[str, str]:
        """The profile's headers, spelled as headers are compared."""
        return {spelled(header): name for header, name in self.config.section_names.items()}

    def tables(self) -> Sequence[Path]:
        """The one table."""
        return (self.config.table,)

    def rows(self) -> Iterator[ImageRow]:
        """The rows that pass `where`; raises InputError when none does."""
        config, columns = self.config, self.config.columns
        used = filter(None, columns.model_dump().values())
        rows = list(read_rows(config.table, (*used, *config.where)))
        where = config.where.items()
        passed = [row for row in rows if all(row[column] in values for column, values in where)]
        if not passed:
            raise InputError(
                f"{config.table}: none of {len(rows)} rows passes source.where={config.where}: "
                "check its columns and values"
            )
        for row in passed:
            path = PurePosixPath(row.filled(columns.image))
            image_id = str(path.with_suffix(""))
            yield ImageRow(
                row.line,
                image_id,
                str(config.image_root / path),
                patient_id=row.filled(columns.patient_id),
                study_id=row.filled(columns.study_id) if columns.study_id else image_id,
                view=(row[columns.view] if columns.view else "") or config.default_view or "",
                split=split_in(row, columns.split) if columns.split else None,
                texts={
                    name: row[column]
                    for name in ("report", "findings", "impression")
                    if (column := getattr(columns, name)) is not None
                },
            )

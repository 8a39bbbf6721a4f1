"""An export of one hospital: `exams.tsv` with a row an image, and reports beside the images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from data_shards.errors import InputError
from data_shards.records.study import View
from data_shards.sources.base import Source, SourceConfig
from data_shards.sources.formats.tables import read_rows
from data_shards.sources.image_row import ImageRow

COLUMNS = ("file", "patient", "exam", "projection")
VIEWS: dict[str, View] = {"PA": "PA", "AP": "AP", "LATERAL": "L"}


class HospitalExportConfig(SourceConfig):
    """`root` holds `exams.tsv`, `images/` and `reports/<exam>.txt`; no split is published."""

    name: Literal["hospital_export"] = "hospital_export"
    licence: str = "internal"
    root: Path

    def open(self) -> HospitalExportSource:
        """The studies of the export."""
        return HospitalExportSource(self)


class HospitalExportSource(Source):
    """The rows of the table, each with the report of its exam."""

    config: HospitalExportConfig
    views = VIEWS

    def tables(self) -> Sequence[Path]:
        """The table, and the reports by name."""
        reports = sorted((self.config.root / "reports").glob("*.txt"))
        return (self.config.root / "exams.tsv", *reports)

    def rows(self) -> Iterator[ImageRow]:
        """Every row. Raises InputError for an exam without a report."""
        for row in read_rows(self.tables()[0], COLUMNS):
            exam = row.filled("exam")
            report = self.config.root / "reports" / f"{exam}.txt"
            if not report.is_file():
                raise InputError(f"{row.where}: {report} is missing: add it or remove the row")
            yield ImageRow(
                row.line,
                image_id=Path(row.filled("file")).stem,
                path=str(self.config.root / "images" / row["file"]),
                patient_id=row.filled("patient"),
                study_id=exam,
                view=row["projection"],
                texts={"report": report.read_text(encoding="utf-8").strip()},
            )

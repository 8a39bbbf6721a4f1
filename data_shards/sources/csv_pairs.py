"""Any table that pairs images with reports: CSV, TSV or JSON lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import Field, model_validator

from data_shards.errors import InputError
from data_shards.profiles import Config
from data_shards.records.manifest import DroppedSample
from data_shards.records.study import Report, Sample, SourceImage, Split, View
from data_shards.report_text.report import parse_plain_report, report_of_sections
from data_shards.sources.base import Source, StudyRef, drop_study, refuse_patients_in_two_splits
from data_shards.sources.formats.tables import read_rows, table_sha256

# In upper case. A "frontal" of unknown direction counts as PA, the usual one: methods only
# tell frontal from lateral.
VIEWS: dict[str, View] = {
    **dict.fromkeys(("PA", "FRONTAL"), "PA"),
    **dict.fromkeys(("AP", "AP SUPINE", "AP ERECT"), "AP"),
    **dict.fromkeys(("L", "LATERAL", "LL", "RL"), "L"),
}
_SPLITS: dict[str, Split] = {
    "train": "train",
    **dict.fromkeys(("validate", "validation", "valid", "val"), "validate"),
    "test": "test",
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

    @property
    def used(self) -> tuple[str, ...]:
        """The columns the table must have."""
        return tuple(column for column in self.model_dump().values() if column is not None)


class CsvPairsConfig(Config):
    """A table, the folder its image paths start from, and what its columns mean.

    `where` keeps the rows whose column has one of the values listed. `default_view` is the
    view of images whose cell is empty or that have no view column. `bad_reports`: rows
    without text.
    """

    name: Literal["csv_pairs"] = "csv_pairs"
    table: Path
    image_root: Path
    columns: CsvColumns
    where: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    default_view: View | None = None
    unknown_views: Literal["stop", "drop"] = "stop"
    bad_reports: Literal["stop", "drop"] = "stop"
    licence: str = "unknown"

    @model_validator(mode="after")
    def _check(self) -> CsvPairsConfig:
        if self.columns.view is None and self.default_view is None:
            raise ValueError("name columns.view, or set default_view for a table without views")
        return self


@dataclass(slots=True)
class _Study:
    line: int
    split: Split | None
    texts: dict[str, str]
    images: list[SourceImage] = field(default_factory=list)


class CsvPairsSource(Source):
    """The studies of a table.

    The table is read once by each process that asks for it; a pickle holds the config only.
    """

    def __init__(self, config: CsvPairsConfig) -> None:
        self.config = config
        self.name = config.name
        self.licence = config.licence

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config, "name": self.name, "licence": self.licence}

    def list_studies(self) -> Sequence[StudyRef]:
        """Every study of the rows that pass `where`, sorted.

        Raises InputError naming the line for: an empty cell, an unknown view or split, an
        image listed twice, rows of one study that differ in report or split; also for a
        patient in two splits, and when no row passes.
        """
        refs = sorted(
            StudyRef(patient_id, study_id, study.split)
            for (patient_id, study_id), study in self._table.studies.items()
        )
        refuse_patients_in_two_splits(refs, where=str(self.config.table))
        return refs

    def load_study(self, ref: StudyRef) -> Sample | DroppedSample:
        """The study's images, in the order of their ids, and its report."""
        study = self._table.studies[ref.patient_id, ref.study_id]
        if not study.images:
            return drop_study(ref, "no image of a known view")
        if not any(study.texts.values()):
            return drop_study(ref, "the report is empty")
        return Sample(
            patient_id=ref.patient_id,
            study_id=ref.study_id,
            images=tuple(sorted(study.images, key=lambda image: image.id)),
            report=_parse(study.texts),
            split=study.split,
        )

    def fingerprint(self) -> str:
        """SHA-256 of the table; the images it names are not read."""
        return table_sha256(self.config.table)

    def list_dropped_images(self) -> Sequence[DroppedSample]:
        """Images of an unknown view."""
        return tuple(sorted(self._table.dropped, key=lambda image: image.key))

    @cached_property
    def _table(self) -> _Table:
        return _read_table(self.config)


@dataclass(frozen=True, slots=True)
class _Table:
    studies: dict[tuple[str, str], _Study]
    dropped: tuple[DroppedSample, ...]


def _read_table(config: CsvPairsConfig) -> _Table:
    studies: dict[tuple[str, str], _Study] = {}
    dropped: list[DroppedSample] = []
    line_of_image: dict[str, int] = {}
    columns = config.columns
    for line, row in _rows_that_pass(config):
        where = f"{config.table}: line {line}"
        image_path = PurePosixPath(_filled(where, row, columns.image))
        image_id = str(image_path.with_suffix(""))
        patient_id = _filled(where, row, columns.patient_id)
        study_id = _filled(where, row, columns.study_id) if columns.study_id else image_id
        if line_of_image.setdefault(image_id, line) != line:
            raise InputError(
                f"{where}: image {image_id} is also in line {line_of_image[image_id]}: duplicate "
                "ids: remove one, or narrow source.where"
            )
        texts = _texts(row, columns)
        if config.bad_reports == "stop" and not any(texts.values()):
            raise InputError(
                f"{where}: image {image_id} has no report: add it or set source.bad_reports=drop"
            )
        found = _Study(line, _split(where, row, columns.split), texts)
        study = studies.setdefault((patient_id, study_id), found)
        if (study.split, study.texts) != (found.split, found.texts):
            raise InputError(
                f"{where}: study {study_id} of patient {patient_id} has another report or split "
                f"than in line {study.line}: give it an id of its own or make them equal"
            )
        view = _view(where, row, config)
        if view is None:
            dropped.append(DroppedSample(key=image_id, reason="unknown view"))
        else:
            study.images.append(SourceImage(image_id, config.image_root / image_path, view))
    return _Table(studies, tuple(dropped))


def _rows_that_pass(config: CsvPairsConfig) -> Iterator[tuple[int, dict[str, str]]]:
    count, passed = 0, 0
    for line, row in read_rows(config.table, (*config.columns.used, *config.where)):
        count += 1
        if all(row[column].strip() in values for column, values in config.where.items()):
            passed += 1
            yield line, row
    if not passed:
        raise InputError(
            f"{config.table}: none of {count} rows passes source.where={config.where}: check its "
            "columns and values"
        )


def _filled(where: str, row: dict[str, str], column: str) -> str:
    value = row[column].strip()
    if not value:
        raise InputError(f"{where}: column {column!r} is empty: fill it in or remove the row")
    return value


def _texts(row: dict[str, str], columns: CsvColumns) -> dict[str, str]:
    named = {
        "report": columns.report,
        "findings": columns.findings,
        "impression": columns.impression,
    }
    return {name: row[column].strip() for name, column in named.items() if column is not None}


def _parse(texts: dict[str, str]) -> Report:
    if "report" in texts:
        return parse_plain_report(texts["report"])
    sections = {name: text for name, text in texts.items() if text}
    raw = "\n".join(f"{name.upper()}: {text}" for name, text in sections.items())
    return report_of_sections(raw, sections)


def _split(where: str, row: dict[str, str], column: str | None) -> Split | None:
    if column is None:
        return None
    value = _filled(where, row, column)
    if value.lower() not in _SPLITS:
        raise InputError(f"{where}: split {value!r}: expected {', '.join(_SPLITS)}")
    return _SPLITS[value.lower()]


def _view(where: str, row: dict[str, str], config: CsvPairsConfig) -> View | None:
    value = row[config.columns.view].strip() if config.columns.view else ""
    if not value and config.default_view is not None:
        return config.default_view
    view = VIEWS.get(" ".join(value.upper().split()))
    if view is None and config.unknown_views == "stop":
        raise InputError(
            f"{where}: unknown view {value!r}: known are {', '.join(VIEWS)}: correct it, filter "
            "it out by source.where, or set source.unknown_views=drop"
        )
    return view

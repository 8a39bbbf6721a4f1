"""Data sets whose tables name each image: settings, rows grouped into studies, and every refusal.

A source gives its rows (`ImageRow`), its tables and where its images lie. What no table may hold
is refused here, with file and line, so that no source has to think of it.
"""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from data_shards.errors import InputError
from data_shards.profiles import Config
from data_shards.records.manifest import DroppedSample, file_sha256
from data_shards.records.study import Report, Sample, SourceImage, Split, View
from data_shards.report_text.report import parse_columns, parse_plain_report
from data_shards.sources.formats.tables import Row

_SPLITS: dict[str, Split] = {
    "train": "train",
    **dict.fromkeys(("validate", "validation", "valid", "val"), "validate"),
    "test": "test",
}
_LABELS: dict[str, float | None] = {
    **dict.fromkeys(("", "nan", "NaN"), None),
    **{"1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "-1": -1.0, "-1.0": -1.0},
}


@dataclass(frozen=True, slots=True, order=True)
class StudyRef:
    """A study by its ids. `split` None: the builder draws one by patient."""

    patient_id: str
    study_id: str
    split: Split | None = None


class SourceConfig(Config):
    """Base of the settings of a data set; each gives `name` the value that profiles choose it by.

    Name and `licence` are stored with every sample. `bits`: samples of images use this many bits,
    where their files have more (12 of 16, say); `in_use`: as many as each image's highest sample
    needs; by default those of the file. `orientation`: images and masks are turned upright as
    their files say, or taken as they are stored there. `unknown_views`: an image whose view is none
    of the known stops the build, or is left out and counted. `bad_reports`: so for a study whose
    report is absent, empty or cannot be read.
    """

    name: str
    licence: str
    bits: Annotated[int, Field(ge=1, le=16)] | Literal["in_use"] | None = None
    orientation: Literal["upright", "as_stored"] = "upright"
    unknown_views: Literal["stop", "drop"] = "stop"
    bad_reports: Literal["stop", "drop"] = "stop"

    @abstractmethod
    def open(self) -> Source:
        """The data set."""


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image as a table lists it in `line`, and what that line says of the whole study.

    `path` is the file's; `view` is as the table spells it. `texts` are the report's sections by
    name, or all of it as "report"; None where the table holds no reports.
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

    @property
    def of_study(self) -> tuple[Any, ...]:
        """What all rows of a study must agree on."""
        return self.split, self.texts, self.labels


class Source(ABC):
    """The studies of tables with one image a row; the rows of a study need not be together.

    `views` are the known ones in upper case. `study_ids_are_unique`: no two patients have studies
    of one id. For messages, `images_placed_by` is the setting that says where images lie, and
    `narrowed_by` what the settings offer to leave rows out. A pickle holds the settings only:
    tables and archives are opened in the process that reads them.
    """

    views: ClassVar[Mapping[str, View]]
    study_ids_are_unique: ClassVar[bool] = True
    images_placed_by: ClassVar[str] = "source"
    narrowed_by: ClassVar[str] = ""

    def __init__(self, config: SourceConfig) -> None:
        self.config = config

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config}

    @property
    def section_names(self) -> Mapping[str, str]:
        """Headers of reports by the section they open, beside those that are known."""
        return {}

    @abstractmethod
    def tables(self) -> Sequence[Path]:
        """All that the studies are read from, the table of images first."""

    @abstractmethod
    def rows(self) -> Iterator[ImageRow]:
        """The images of the tables. Raises InputError for a row that makes no sense."""

    def list_studies(self) -> Sequence[StudyRef]:
        """Every study the tables name, sorted, without reading files of reports.

        Raises InputError naming the line for: an image listed twice, rows of one study that
        differ in report, labels or split, a patient in two splits, an unknown view and an empty
        report (where the policy is to stop), and what `rows` refuses.
        """
        return sorted(self.studies)

    def refuse_absent_folder(self) -> None:
        """Raise InputError where not even the folder that all images should lie in is there."""
        parents = {str(Path(row.path).parent) for rows in self.studies.values() for row in rows}
        try:
            folder = Path(os.path.commonpath(parents))
        except ValueError:
            # Some paths are absolute and some are not.
            return
        if not folder.is_dir():
            what = "a file, not a folder" if folder.exists() else "no such folder"
            raise InputError(
                f"{folder}: {what}, and all images should lie there: check {self.images_placed_by}"
            )

    def load_study(self, ref: StudyRef) -> Sample | str:
        """The study with its report parsed and its images listed (not decoded) in the order of
        their ids, or the reason why it is left out; reasons are counted, so they name no id.
        """
        images = self.known_images(ref)
        if not images:
            return "no image of a known view"
        report = self.read_report(ref)
        if isinstance(report, str):
            return report
        labels = dict(self.studies[ref][0].labels or {})
        return Sample(ref.patient_id, ref.study_id, images, report, ref.split, labels)

    def read_report(self, ref: StudyRef) -> Report | str:
        """The parsed report, or the reason to leave its study out."""
        texts = {name: text for name, text in (self.studies[ref][0].texts or {}).items() if text}
        if not texts:
            return "the report is empty"
        if "report" in texts:
            return parse_plain_report(texts["report"], more_names=self.section_names)
        raw = "\n".join(f"{name.upper()}: {text}" for name, text in texts.items())
        return parse_columns(raw, texts, more_names=self.section_names)

    def fingerprint(self) -> str:
        """A digest of the texts and tables the studies come from: others give other shards.

        Content decides, neither names of folders nor file times: a table packed again is another.
        Images are not read.
        """
        digests = {path.name: file_sha256(path) for path in self.tables()}
        return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()

    def list_dropped_images(self) -> Sequence[DroppedSample]:
        """Images the tables name that no study will hold, by image id, and why.

        Those of studies that are dropped whole may be among them; those a profile filters out
        by view are not.
        """
        every = (image for images in self.studies.values() for image in images)
        unknown = sorted(image.image_id for image in every if self._view(image) is None)
        return tuple(DroppedSample(key=image, reason="unknown view") for image in unknown)

    def side_reports(self) -> Mapping[str, str]:
        """Texts to write beside the manifest, by file name (an overlap with another set)."""
        return {}

    def known_images(self, ref: StudyRef) -> tuple[SourceImage, ...]:
        """The images of a study whose view is known, in the order of their ids."""
        return tuple(
            SourceImage(image.image_id, Path(image.path), view)
            for image in sorted(self.studies[ref], key=lambda image: image.image_id)
            if (view := self._view(image)) is not None
        )

    @cached_property
    def studies(self) -> dict[StudyRef, list[ImageRow]]:
        """The rows of each study, read once a process."""
        studies: dict[tuple[str, str], list[ImageRow]] = {}
        line_of_image: dict[str, int] = {}
        first_of_id: dict[str, ImageRow] = {}
        first_of_patient: dict[str, ImageRow] = {}
        for row in self.rows():
            self._refuse_bad(row)
            line = line_of_image.setdefault(row.image_id, row.line)
            if line != row.line:
                raise InputError(
                    f"{self._where(row)}: image {row.image_id} is also in line {line}: duplicate "
                    f"ids: remove one{self.narrowed_by}"
                )
            rows = studies.setdefault((row.patient_id, row.study_id), [])
            rows.append(row)
            if rows[0].of_study != row.of_study:
                raise InputError(
                    f"{self._where(row)}: study {row.study_id} of patient {row.patient_id} has "
                    f"another report, split or label than in line {rows[0].line}: give it an id of "
                    "its own or make them equal"
                )
            first = first_of_patient.setdefault(row.patient_id, row)
            if first.split != row.split:
                raise InputError(
                    f"{self._where(row)}: patient {row.patient_id} is in two splits (study "
                    f"{first.study_id} in {first.split}, study {row.study_id} in {row.split}): "
                    "give all studies of a patient one split"
                )
            first = first_of_id.setdefault(row.study_id, row)
            if self.study_ids_are_unique and first.patient_id != row.patient_id:
                raise InputError(
                    f"{self._where(row)}: study {row.study_id} is of patient {row.patient_id}, and "
                    f"in line {first.line} of patient {first.patient_id}: correct one of them"
                )
        return {StudyRef(*ids, rows[0].split): rows for ids, rows in studies.items()}

    def _refuse_bad(self, row: ImageRow) -> None:
        if self.config.unknown_views == "stop" and self._view(row) is None:
            raise InputError(
                f"{self._where(row)}: image {row.image_id}: unknown view {row.view!r}: known are "
                f"{', '.join(self.views)}: correct it{self.narrowed_by}, or set "
                "source.unknown_views=drop"
            )
        empty = row.texts is not None and not any(row.texts.values())
        if self.config.bad_reports == "stop" and empty:
            raise InputError(
                f"{self._where(row)}: image {row.image_id} has no report: add it or set "
                "source.bad_reports=drop"
            )

    def _where(self, row: ImageRow) -> str:
        return f"{self.tables()[0]}: line {row.line}"

    def _view(self, row: ImageRow) -> View | None:
        return self.views.get(" ".join(row.view.upper().split()))


def split_in(row: Row, column: str) -> Split:
    """The split that a cell names. Raises InputError for an empty cell and any other word."""
    value = row.filled(column)
    if value.lower() not in _SPLITS:
        raise InputError(f"{row.where}: split {value!r}: expected {', '.join(_SPLITS)}")
    return _SPLITS[value.lower()]


def label_in(row: Row, column: str) -> float | None:
    """1, 0, -1 (uncertain) or None (not mentioned). Raises InputError for another value."""
    value = row[column]
    if value not in _LABELS:
        raise InputError(f"{row.where}: label {value!r}: expected 1, 0, -1 or nothing")
    return _LABELS[value]

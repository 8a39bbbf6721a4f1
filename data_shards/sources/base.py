"""Data sets whose tables name each image: settings, rows grouped into studies, and every refusal.

A source gives its rows (`ImageRow`), its tables and where its images lie. What no table may hold
is refused here, with file and line, so that no source has to think of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

from pydantic import field_validator

from data_shards.errors import InputError
from data_shards.profiles import Config
from data_shards.records.manifest import DroppedSample, file_sha256
from data_shards.records.study import (
    NO_REPORT,
    ImageFile,
    Report,
    Sample,
    SourceImage,
    SourceMask,
    Split,
    View,
)
from data_shards.report_text.report import parse_columns, parse_plain_report
from data_shards.sources.grouping import Conflicts, GroupingRules, Studies, group_rows
from data_shards.sources.image_row import ImageRow

BoxesOutside: TypeAlias = Literal["stop", "clip", "keep"]


@dataclass(frozen=True, slots=True, order=True)
class StudyRef:
    """A study by its ids. `split` None: the builder draws one by patient."""

    patient_id: str
    study_id: str
    split: Split | None = None


class SourceConfig(Config):
    """Base of the settings of a data set; each gives `name` the value that profiles choose it by.

    Name and `licence` are stored with every sample. `bits`: samples of images use this many bits,
    where their files have more (12 of 16, say); `in_use`: as many as each image's own samples need;
    by default those of the file. A marker may lie beyond these bits. `orientation`: images and
    masks are turned upright as their files say, or taken as they are stored there. `unknown_views`:
    an image whose view is none of the known stops the build, or is left out and counted.
    `bad_reports`: so for a study whose report is absent, empty or cannot be read. `conflicts`: rows
    that contradict each other, of a study (another report or label) or in naming an image twice,
    stop the build, or the first row holds, or their studies are left out. `boxes_outside`: a box
    that reaches out of its image, by more than rounding does, stops the build, is cut, or is kept
    as it is; one that lies beside it stops the build.
    """

    name: str
    licence: str
    bits: int | Literal["in_use"] | None = None
    orientation: Literal["upright", "as_stored"] = "upright"
    unknown_views: Literal["stop", "drop"] = "stop"
    bad_reports: Literal["stop", "drop"] = "stop"
    conflicts: Conflicts = "stop"
    boxes_outside: BoxesOutside = "stop"

    @field_validator("bits", mode="before")
    @classmethod
    def _are_at_most_16(cls, value: Any) -> Any:
        number = re.fullmatch(r"0*([1-9]|1[0-6])", str(value))
        if value not in (None, "in_use") and not number:
            raise ValueError("a number of bits from 1 to 16 is wanted, or in_use")
        return int(number[1]) if number else value

    @abstractmethod
    def open(self) -> Source:
        """The data set."""


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

        Raises InputError naming the line for: a patient in two splits, one id written in two ways
        (7 and 7.0), what `rows` refuses and, where the policies are to stop, an image listed twice,
        rows of one study that differ in report or labels, an unknown view and an empty report.
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
        if (ref.patient_id, ref.study_id) in self._grouped.contradictory:
            return "rows of the study contradict each other"
        images = self.known_images(ref)
        if not images:
            return "no image of a known view"
        report = self.read_report(ref)
        if isinstance(report, str):
            return report
        rows = {row.image_id: row for row in self.studies[ref]}
        numbered = [(number, rows[image.id]) for number, image in enumerate(images)]
        return Sample(
            ref.patient_id,
            ref.study_id,
            images,
            report,
            ref.split,
            dict(self.studies[ref][0].labels or {}),
            tuple(replace(box, image=number) for number, row in numbered for box in row.boxes),
            tuple(SourceMask(number, *mask) for number, row in numbered for mask in row.masks),
        )

    def read_report(self, ref: StudyRef) -> Report | str:
        """The parsed report, or the reason to leave its study out."""
        told = self.studies[ref][0].texts
        if told is None:
            return NO_REPORT
        texts = {name: text for name, text in told.items() if text}
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

    def warnings(self) -> Sequence[str]:
        """What a build says of the tables at its end, in lines with counts."""
        return self._grouped.warnings

    def labels_of_patients(self) -> Mapping[str, Mapping[str, bool]]:
        """By patient, whether any of its studies has each label of the tables (1)."""
        found: dict[str, dict[str, bool]] = {}
        for ref, rows in self.studies.items():
            mine = found.setdefault(ref.patient_id, {})
            for name, value in (rows[0].labels or {}).items():
                mine[name] = mine.get(name, False) or value == 1
        return found

    def side_reports(self) -> Mapping[str, str]:
        """Texts to write beside the manifest, by file name (an overlap with another set)."""
        return {}

    def file_of(self, row: ImageRow) -> ImageFile:
        """What the image of a row is read from."""
        return Path(row.path)

    def known_images(self, ref: StudyRef) -> tuple[SourceImage, ...]:
        """The images of a study whose view is known, in the order of their ids."""
        return tuple(
            SourceImage(
                image.image_id, self.file_of(image), view, self._where(image), image.size_px
            )
            for image in sorted(self.studies[ref], key=lambda image: image.image_id)
            if (view := self._view(image)) is not None
        )

    @property
    def named_images(self) -> Iterator[str]:
        """The ids of all images that the tables name."""
        return (row.image_id for rows in self.studies.values() for row in rows)

    @cached_property
    def studies(self) -> dict[StudyRef, list[ImageRow]]:
        """The rows of each study, the first with the whole report."""
        grouped = self._grouped.rows.items()
        return {StudyRef(*ids, rows[0].split): rows for ids, rows in grouped}

    @cached_property
    def _grouped(self) -> Studies:
        """Read once a process."""
        rules = GroupingRules(
            self._where,
            conflicts=self.config.conflicts,
            bad_reports=self.config.bad_reports,
            study_ids_are_unique=self.study_ids_are_unique,
            narrowed_by=self.narrowed_by,
        )
        return group_rows(map(self._of_known_view, self.rows()), rules)

    def _of_known_view(self, row: ImageRow) -> ImageRow:
        if self.config.unknown_views == "stop" and self._view(row) is None:
            raise InputError(
                f"{self._where(row)}: image {row.image_id}: unknown view {row.view!r}: known are "
                f"{', '.join(self.views)}: correct it{self.narrowed_by}, or set "
                "source.unknown_views=drop"
            )
        return row

    def _where(self, row: ImageRow) -> str:
        table = row.table or str(self.tables()[0])
        return f"{table}: {row.place}" if row.line else table

    def _view(self, row: ImageRow) -> View | None:
        return self.views.get(" ".join(row.view.upper().split()))

"""Data sets whose tables name each image: rows grouped into studies, and every refusal.

A source gives its rows (`ImageRow`), its tables and where its images lie. What no table may hold
is refused here, with file and line, so that no source has to think of it.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from data_shards.errors import InputError
from data_shards.records.manifest import DroppedSample
from data_shards.records.study import Report, Sample, SourceImage, Split, View
from data_shards.report_text.report import parse_plain_report, report_of_sections
from data_shards.sources.base import (
    Source,
    StudyRef,
    drop_study,
    refuse_patients_in_two_splits,
)
from data_shards.sources.formats.tables import Row, table_sha256

_SPLITS: dict[str, Split] = {
    "train": "train",
    **dict.fromkeys(("validate", "validation", "valid", "val"), "validate"),
    "test": "test",
}
_LABELS: dict[str, float | None] = {
    **dict.fromkeys(("", "nan", "NaN"), None),
    **{"1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "-1": -1.0, "-1.0": -1.0},
}


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image as a table lists it, and what its row says of the whole study.

    `path` starts from the source's `image_root`; `view` is as the table spells it. `texts` are the
    report's sections by name, or all of it as "report"; None where the table holds no reports.
    """

    row: Row
    image_id: str
    path: str
    patient_id: str
    study_id: str
    view: str
    split: Split | None = None
    texts: Mapping[str, str] | None = None
    labels: Mapping[str, float | None] | None = None


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image of a study; `view` is None where it is none of the known."""

    id: str
    path: str
    view: View | None


@dataclass(frozen=True, slots=True)
class ListedStudy:
    """A study as its first row has it (in line `line`), and the images of all of its rows."""

    ref: StudyRef
    line: int
    texts: Mapping[str, str] | None
    labels: Mapping[str, float | None] | None
    images: list[ListedImage] = field(default_factory=list)


class TableSource(Source):
    """The studies of tables with one image a row; the rows of a study need not be together.

    `views` are the known ones in upper case. `study_ids_are_unique`: no two patients have studies
    of one id. `narrowed_by` is what the settings offer to leave rows out, for messages.
    """

    views: ClassVar[Mapping[str, View]]
    study_ids_are_unique: ClassVar[bool] = True
    narrowed_by: ClassVar[str] = ""

    @property
    @abstractmethod
    def image_root(self) -> Path:
        """The folder that the paths of images start from."""

    @abstractmethod
    def tables(self) -> Sequence[Path]:
        """All that the studies are read from, the table of images first."""

    @abstractmethod
    def rows(self) -> Iterator[ImageRow]:
        """The images of the tables. Raises InputError for a row that makes no sense."""

    def list_studies(self) -> Sequence[StudyRef]:
        """Every study, sorted.

        Raises InputError naming the line for: an image listed twice, rows of one study that
        differ in report, labels or split, an unknown view and an empty report (where the policy
        is to stop), and what `rows` refuses; also for a patient in two splits.
        """
        refs = sorted(study.ref for study in self.studies.values())
        refuse_patients_in_two_splits(refs, where=str(self.tables()[0]))
        return refs

    def load_study(self, ref: StudyRef) -> Sample | DroppedSample:
        """The study with its images in the order of their ids, or the reason it is left out."""
        study = self.studies[ref.patient_id, ref.study_id]
        images = self.known_images(study)
        if not images:
            return drop_study(ref, "no image of a known view")
        texts = {name: text for name, text in (study.texts or {}).items() if text}
        if not texts:
            return drop_study(ref, "the report is empty")
        return Sample(
            patient_id=ref.patient_id,
            study_id=ref.study_id,
            images=images,
            report=_parse(texts),
            split=study.ref.split,
            labels=dict(study.labels or {}),
        )

    def fingerprint(self) -> str:
        """SHA-256 of the tables; the images they name are not read."""
        digests = {path.name: table_sha256(path) for path in self.tables()}
        return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()

    def list_dropped_images(self) -> Sequence[DroppedSample]:
        """Images of an unknown view."""
        every = (image for study in self.studies.values() for image in study.images)
        unknown = sorted(image.id for image in every if image.view is None)
        return tuple(DroppedSample(key=image, reason="unknown view") for image in unknown)

    def known_images(self, study: ListedStudy) -> tuple[SourceImage, ...]:
        """The images of `study` whose view is known, in the order of their ids."""
        return tuple(
            SourceImage(image.id, self.image_root / image.path, image.view)
            for image in sorted(study.images, key=lambda image: image.id)
            if image.view is not None
        )

    @cached_property
    def studies(self) -> dict[tuple[str, str], ListedStudy]:
        """The studies of all rows by patient and study id, read once a process."""
        return self._grouped(self.rows())

    def _grouped(self, rows: Iterable[ImageRow]) -> dict[tuple[str, str], ListedStudy]:
        studies: dict[tuple[str, str], ListedStudy] = {}
        line_of_image: dict[str, int] = {}
        first_of_id: dict[str, ListedStudy] = {}
        for each in rows:
            where, line = each.row.where, each.row.line
            if line_of_image.setdefault(each.image_id, line) != line:
                raise InputError(
                    f"{where}: image {each.image_id} is also in line "
                    f"{line_of_image[each.image_id]}: duplicate ids: remove one{self.narrowed_by}"
                )
            self._refuse_empty_report(each)
            ref = StudyRef(each.patient_id, each.study_id, each.split)
            found = ListedStudy(ref, line, each.texts, each.labels)
            study = studies.setdefault((each.patient_id, each.study_id), found)
            if (study.ref, study.texts, study.labels) != (ref, each.texts, each.labels):
                raise InputError(
                    f"{where}: study {each.study_id} of patient {each.patient_id} has another "
                    f"report, split or label than in line {study.line}: give it an id of its own "
                    "or make them equal"
                )
            first = first_of_id.setdefault(each.study_id, study)
            if self.study_ids_are_unique and first is not study:
                raise InputError(
                    f"{where}: study {each.study_id} is of patient {each.patient_id}, and in line "
                    f"{first.line} of patient {first.ref.patient_id}: correct one of them"
                )
            study.images.append(ListedImage(each.image_id, each.path, self._view(each)))
        return studies

    def _refuse_empty_report(self, each: ImageRow) -> None:
        if each.texts is None or any(each.texts.values()) or self.config.bad_reports == "drop":
            return
        raise InputError(
            f"{each.row.where}: image {each.image_id} has no report: add it or set "
            "source.bad_reports=drop"
        )

    def _view(self, each: ImageRow) -> View | None:
        view = self.views.get(" ".join(each.view.upper().split()))
        if view is None and self.config.unknown_views == "stop":
            raise InputError(
                f"{each.row.where}: image {each.image_id}: unknown view {each.view!r}: known are "
                f"{', '.join(self.views)}: correct it{self.narrowed_by}, or set "
                "source.unknown_views=drop"
            )
        return view


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


def _parse(texts: Mapping[str, str]) -> Report:
    if "report" in texts:
        return parse_plain_report(texts["report"])
    raw = "\n".join(f"{name.upper()}: {text}" for name, text in texts.items())
    return report_of_sections(raw, texts)

"""MIMIC-CXR-JPG with its reports, and MS-CXR's boxes on top of it."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from data_shards.errors import InputError
from data_shards.profiles import Config
from data_shards.records.manifest import DroppedSample
from data_shards.records.study import (
    FRONTAL_VIEWS,
    Box,
    Report,
    Sample,
    SourceImage,
    SourceMask,
    View,
)
from data_shards.report_text.report import parse_report, report_of_sections
from data_shards.sources.base import Source, StudyRef, drop_study, refuse_patients_in_two_splits
from data_shards.sources.formats.report_archive import BadReportError, ReportArchive, find_reports
from data_shards.sources.formats.tables import table_sha256
from data_shards.sources.mimic_cxr_exceptions import (
    EXCEPTIONS,
    WITHOUT_FINDINGS,
    conclusion_by_hand,
)
from data_shards.sources.mimic_cxr_tables import (
    VIEW_OF_POSITION,
    Labels,
    ListedImage,
    ListedStudy,
    read_labels,
    read_studies,
    table_paths,
)
from data_shards.sources.ms_cxr import PhraseBox, annotation_file, ms_cxr_overlap, read_ms_cxr

LICENCE = "PhysioNet Credentialed Health Data License 1.5.0"


class MimicCxrConfig(Config):
    """Where MIMIC-CXR-JPG lies and what of it to keep.

    `root` holds `files/` and the metadata, split and (optional) chexpert tables; `reports` is
    mimic-cxr-reports.zip or a folder with `files/`, by default in or beside `root`.
    `unknown_views`: images whose ViewPosition is empty or none of AP, PA, LATERAL, LL.
    `exceptions`: the 54 reports with hand-written rules are left out (as by LoVT), or get
    their conclusion by those rules (`sections`), or are parsed as any other (`keep`).
    `exclude_ms_cxr` holds MS-CXR's images, or all studies of its patients, out of the shards.
    `masks`: a folder of `<dicom_id>__<category>.png`, for archives that have them.
    """

    name: Literal["mimic_cxr"] = "mimic_cxr"
    root: Path
    reports: Path | None = None
    views: tuple[View, ...] = Field(default=("PA", "AP", "L"), min_length=1)
    unknown_views: Literal["drop", "stop"] = "drop"
    require_frontal: bool = True
    exceptions: Literal["drop", "sections", "keep"] = "drop"
    bad_reports: Literal["stop", "drop"] = "stop"
    ms_cxr: Path | None = None
    exclude_ms_cxr: Literal["none", "images", "patients"] = "none"
    masks: Path | None = None

    @model_validator(mode="after")
    def _check(self) -> MimicCxrConfig:
        if self.exclude_ms_cxr != "none" and self.ms_cxr is None:
            raise ValueError("exclude_ms_cxr needs MS-CXR's annotations: set ms_cxr to their file")
        if self.require_frontal and FRONTAL_VIEWS.isdisjoint(self.views):
            raise ValueError("views has no frontal (PA, AP): add one or set require_frontal=false")
        return self


class MimicCxrSource(Source):
    """The studies of an archive in MIMIC-CXR-JPG's layout, in its official split.

    Tables are read once by each process that asks for them; a pickle holds the config only.
    `edition` tells archives apart that differ in their images alone.
    """

    def __init__(
        self,
        config: MimicCxrConfig,
        *,
        name: str = "mimic_cxr",
        licence: str = LICENCE,
        edition: str = "",
    ) -> None:
        self.config = config
        self.name = name
        self.licence = licence
        self.edition = edition

    def __getstate__(self) -> dict[str, Any]:
        return {
            "config": self.config,
            "name": self.name,
            "licence": self.licence,
            "edition": self.edition,
        }

    def list_studies(self) -> Sequence[StudyRef]:
        """Every study of the metadata, sorted. Errors: see `Source` and `read_studies`."""
        self._refuse_unknown_views()
        # Found missing here rather than by the first worker.
        _ = self._reports, self._masks, self._phrase_boxes
        refs = sorted(
            StudyRef(study.patient_id, study.study_id, study.split)
            for study in self._studies.values()
        )
        refuse_patients_in_two_splits(refs, where=str(self.config.root))
        return refs

    def load_study(self, ref: StudyRef) -> Sample | DroppedSample:
        """The study with report, labels, boxes and masks, or the reason it is left out."""
        study = self._studies[ref.study_id]
        if self.config.exceptions == "drop" and study.study_id in EXCEPTIONS:
            return drop_study(ref, "one of the 54 reports with hand-written rules")
        if self.config.exclude_ms_cxr == "patients" and study.patient_id in self._held_out:
            return drop_study(ref, "patient of MS-CXR")
        images = tuple(self._kept_images(study))
        if not images:
            return drop_study(ref, "no image of a wanted view")
        if self.config.require_frontal and not any(i.view in FRONTAL_VIEWS for i in images):
            return drop_study(ref, "no frontal image")
        report = self._report(study)
        if not isinstance(report, Report):
            return drop_study(ref, report)
        return Sample(
            patient_id=study.patient_id,
            study_id=study.study_id,
            images=images,
            report=report,
            split=study.split,
            labels=self._labels.of(study),
            boxes=self._boxes(images),
            masks=tuple(
                SourceMask(number, category, path)
                for number, image in enumerate(images)
                for category, path in self._masks.get(image.id, ())
            ),
        )

    def fingerprint(self) -> str:
        """SHA-256 over the tables, MS-CXR's boxes, the report zip's directory and the edition.

        Images, masks and reports in an unpacked folder are not read: those edited in place go
        unnoticed.
        """
        tables = [*table_paths(self.config.root)]
        if self.config.ms_cxr is not None:
            tables.append(annotation_file(self.config.ms_cxr))
        described = {
            "tables": {path.name: table_sha256(path) for path in tables},
            "reports": self._reports.fingerprint(),
            "edition": self.edition,
        }
        return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()

    def list_dropped_images(self) -> Sequence[DroppedSample]:
        """Images of an unknown view, and MS-CXR's where those are held out."""
        reasons = {
            image.dicom_id: reason
            for study in self._studies.values()
            for image in study.images
            if (reason := self._reason_to_drop(image)) is not None
        }
        return tuple(
            DroppedSample(key=image, reason=reason) for image, reason in sorted(reasons.items())
        )

    def side_reports(self) -> Mapping[str, str]:
        """`ms_cxr_overlap.json`: how many of MS-CXR's images and patients each split holds."""
        if self.config.ms_cxr is None:
            return {}
        place = {
            image.dicom_id: (study.patient_id, study.split)
            for study in self._studies.values()
            for image in study.images
        }
        return {"ms_cxr_overlap.json": ms_cxr_overlap(self._phrase_boxes, place).to_json()}

    def _refuse_unknown_views(self) -> None:
        if self.config.unknown_views == "drop":
            return
        for study in self._studies.values():
            for image in study.images:
                if image.view is None:
                    raise InputError(
                        f"{self.config.root}: image {image.dicom_id}: unknown view "
                        f"{image.position!r} (known: {', '.join(VIEW_OF_POSITION)}): correct the "
                        "metadata or set source.unknown_views=drop"
                    )

    def _reason_to_drop(self, image: ListedImage) -> str | None:
        if image.view is None:
            return "unknown view"
        if self.config.exclude_ms_cxr == "images" and image.dicom_id in self._phrase_boxes:
            return "image of MS-CXR"
        return None

    def _kept_images(self, study: ListedStudy) -> Sequence[SourceImage]:
        folder = self.config.root / study.folder
        return [
            SourceImage(image.dicom_id, folder / f"{image.dicom_id}.jpg", image.view)
            for image in study.images
            if self._reason_to_drop(image) is None and image.view in self.config.views
        ]

    def _report(self, study: ListedStudy) -> Report | str:
        """The parsed report, or the reason to leave its study out."""
        member = study.folder.with_suffix(".txt")
        without_findings = study.study_id in WITHOUT_FINDINGS
        if without_findings and self.config.exceptions == "sections":
            return "nothing about the images in the report"
        try:
            raw = self._reports.read(member)
        except BadReportError as error:
            if self.config.bad_reports == "drop" or without_findings:
                return str(error)
            raise InputError(
                f"{self._reports.path}: {member}: {error}: fetch it again or set "
                "source.bad_reports=drop"
            ) from error
        report = parse_report(raw)
        if self.config.exceptions == "keep" or study.study_id not in EXCEPTIONS:
            return report
        conclusion = conclusion_by_hand(study.study_id, raw, report.sections)
        if not conclusion:
            return "no conclusion where the published rule says"
        return report_of_sections(raw, {**report.sections, "impression": conclusion})

    def _boxes(self, images: Sequence[SourceImage]) -> tuple[Box, ...]:
        return tuple(
            Box(number, box.x, box.y, box.width, box.height, box.category, box.phrase)
            for number, image in enumerate(images)
            for box in self._phrase_boxes.get(image.id, ())
        )

    @cached_property
    def _studies(self) -> dict[str, ListedStudy]:
        return read_studies(self.config.root)

    @cached_property
    def _labels(self) -> Labels:
        return read_labels(self.config.root)

    @cached_property
    def _reports(self) -> ReportArchive:
        return find_reports(self.config.root, self.config.reports)

    @cached_property
    def _phrase_boxes(self) -> dict[str, tuple[PhraseBox, ...]]:
        return {} if self.config.ms_cxr is None else read_ms_cxr(self.config.ms_cxr)

    @cached_property
    def _held_out(self) -> frozenset[str]:
        return frozenset(
            study.patient_id
            for study in self._studies.values()
            if any(image.dicom_id in self._phrase_boxes for image in study.images)
        )

    @cached_property
    def _masks(self) -> dict[str, list[tuple[str, Path]]]:
        folder = self.config.masks
        masks: dict[str, list[tuple[str, Path]]] = defaultdict(list)
        if folder is None:
            return masks
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder: check source.masks")
        for path in sorted(folder.glob("*__*.png")):
            dicom_id, _, category = path.stem.partition("__")
            masks[dicom_id].append((category, path))
        return masks

"""MIMIC-CXR-JPG with its reports, and MS-CXR's boxes on top of it."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field, model_validator

from data_shards.errors import InputError
from data_shards.records.manifest import DroppedSample
from data_shards.records.study import (
    FRONTAL_VIEWS,
    Report,
    Sample,
    SourceImage,
    SourceMask,
    View,
)
from data_shards.report_text.report import parse_report, report_of_sections
from data_shards.sources.base import Source, SourceConfig, StudyRef
from data_shards.sources.image_row import ImageRow
from data_shards.sources.mimic_cxr_files import (
    EXCEPTIONS,
    WITHOUT_FINDINGS,
    BadReportError,
    ReportArchive,
    conclusion_by_hand,
    find_reports,
    image_rows,
    study_path,
    table_paths,
)
from data_shards.sources.ms_cxr import Annotation, annotation_file, ms_cxr_overlap, read_ms_cxr

VIEW_OF_POSITION: dict[str, View] = {"PA": "PA", "AP": "AP", "LATERAL": "L", "LL": "L"}


class MimicCxrConfig(SourceConfig):
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
    licence: str = "PhysioNet Credentialed Health Data License 1.5.0"
    root: Path
    reports: Path | None = None
    views: tuple[View, ...] = Field(default=("PA", "AP", "L"), min_length=1)
    unknown_views: Literal["stop", "drop"] = "drop"
    require_frontal: bool = True
    exceptions: Literal["drop", "sections", "keep"] = "drop"
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

    def open(self) -> MimicCxrSource:
        """The studies of the archive."""
        return MimicCxrSource(self)


class MimicCxrSource(Source):
    """The studies of an archive in MIMIC-CXR-JPG's layout, in its official split.

    A report stands in a file of its study's name, so that a study has one or none.
    """

    config: MimicCxrConfig
    views = VIEW_OF_POSITION
    images_placed_by = "source.root"

    def tables(self) -> Sequence[Path]:
        """Metadata, splits, labels and MS-CXR's boxes, those that there are."""
        boxes = self.config.ms_cxr
        return (*table_paths(self.config.root), *([annotation_file(boxes)] if boxes else ()))

    def rows(self) -> Iterator[ImageRow]:
        """The images of the metadata."""
        return image_rows(self.config.root)

    def list_studies(self) -> Sequence[StudyRef]:
        """Every study of the metadata, sorted. Errors: see `Source` and `image_rows`."""
        # Found missing here rather than by the first worker.
        _ = self._reports, self._masks
        studies = super().list_studies()
        if self._strangers and len(self._strangers) == len(self._of_ms_cxr):
            raise InputError(
                f"{self.config.ms_cxr}: none of its {len(self._of_ms_cxr):,} images "
                f"({self._strangers[0]} ...) is in {self.tables()[0]}: fetch both again"
            )
        if len(self._unlabelled) == len(studies):
            raise InputError(
                f"{self._label_table}: none of the {len(studies):,} studies in {self.tables()[0]} "
                "has a line: fetch both again, or take the table of labels away"
            )
        return studies

    def warnings(self) -> Sequence[str]:
        """Of the tables; and how many images of MS-CXR are none of the archive's, and studies
        without labels.
        """
        told = super().warnings()
        if self._strangers:
            told = (
                *told,
                f"{len(self._strangers):,} of {len(self._of_ms_cxr):,} images of MS-CXR are not "
                f"in the archive's tables (first: {self._strangers[0]}): fetch both again",
            )
        if self._unlabelled:
            told = (
                *told,
                f"{len(self._unlabelled):,} x a study without a line in the table of labels "
                f"(first: {self._unlabelled[0]}): its labels are unknown; if they are more than a "
                "few, fetch that table again",
            )
        return told

    def load_study(self, ref: StudyRef) -> Sample | str:
        """The study with report, labels, boxes and masks, or the reason it is left out."""
        if self.config.exceptions == "drop" and ref.study_id in EXCEPTIONS:
            return "one of the 54 reports with hand-written rules"
        if self.config.exclude_ms_cxr == "patients" and ref.patient_id in self._patients_of_ms_cxr:
            return "patient of MS-CXR"
        images = self.known_images(ref)
        if not images:
            return "no image of a wanted view"
        if self.config.require_frontal and not any(i.view in FRONTAL_VIEWS for i in images):
            return "no frontal image"
        sample = super().load_study(ref)
        if isinstance(sample, str):
            return sample
        return replace(
            sample,
            boxes=tuple(
                replace(each.box, image=number)
                for number, image in enumerate(images)
                for each in self._of_ms_cxr.get(image.id, ())
            ),
            masks=tuple(
                SourceMask(number, category, path)
                for number, image in enumerate(images)
                for category, path in self._masks.get(image.id, ())
            ),
        )

    def known_images(self, ref: StudyRef) -> tuple[SourceImage, ...]:
        """Those of a wanted view, without the ones of MS-CXR where these are held out."""
        return tuple(
            replace(image, size_px=self._of_ms_cxr[image.id][0].size_px)
            if image.id in self._of_ms_cxr
            else image
            for image in super().known_images(ref)
            if image.view in self.config.views and image.id not in self._held_out_images
        )

    def fingerprint(self) -> str:
        """SHA-256 over the tables and the report zip's directory; masks are not read either."""
        described = json.dumps([super().fingerprint(), self._reports.fingerprint()])
        return hashlib.sha256(described.encode()).hexdigest()

    def list_dropped_images(self) -> Sequence[DroppedSample]:
        """Images of an unknown view, and MS-CXR's where those are held out."""
        unknown = super().list_dropped_images()
        held_out = self._held_out_images - {image.key for image in unknown}
        listed = held_out & self._study_of_image.keys()
        dropped = (DroppedSample(key=image, reason="image of MS-CXR") for image in listed)
        return tuple(sorted((*unknown, *dropped), key=lambda image: image.key))

    def side_reports(self) -> Mapping[str, str]:
        """`ms_cxr_overlap.json`: how many of MS-CXR's images and patients each split holds."""
        if self.config.ms_cxr is None:
            return {}
        overlap = ms_cxr_overlap(self._of_ms_cxr, self._study_of_image)
        return {"ms_cxr_overlap.json": json.dumps(overlap, indent=2) + "\n"}

    def read_report(self, ref: StudyRef) -> Report | str:
        """The report, parsed by the archive's layout or its published exceptions.

        Why there is none, where it may be left out. Raises InputError for one that cannot be read.
        """
        member = PurePosixPath(f"{study_path(ref.patient_id, ref.study_id)}.txt")
        without_findings = ref.study_id in WITHOUT_FINDINGS
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
        if self.config.exceptions == "keep" or ref.study_id not in EXCEPTIONS:
            return report
        conclusion = conclusion_by_hand(ref.study_id, raw, report.sections)
        if not conclusion:
            return "no conclusion where the published rule says"
        return report_of_sections(raw, {**report.sections, "impression": conclusion})

    @property
    def _label_table(self) -> Path | None:
        return next(iter(table_paths(self.config.root)[2:]), None)

    @cached_property
    def _unlabelled(self) -> list[str]:
        """Studies without a line in the table of labels, where there is one."""
        every = self.studies.items() if self._label_table else ()
        return sorted(ref.study_id for ref, rows in every if rows[0].labels is None)

    @cached_property
    def _reports(self) -> ReportArchive:
        return find_reports(self.config.root, self.config.reports)

    @cached_property
    def _of_ms_cxr(self) -> dict[str, list[Annotation]]:
        return {} if self.config.ms_cxr is None else read_ms_cxr(self.config.ms_cxr)

    @cached_property
    def _strangers(self) -> list[str]:
        """Images of MS-CXR that the metadata do not list."""
        return sorted(self._of_ms_cxr.keys() - self._study_of_image.keys())

    @cached_property
    def _held_out_images(self) -> frozenset[str]:
        return frozenset(self._of_ms_cxr if self.config.exclude_ms_cxr == "images" else ())

    @cached_property
    def _study_of_image(self) -> dict[str, StudyRef]:
        return {image.image_id: ref for ref, images in self.studies.items() for image in images}

    @cached_property
    def _patients_of_ms_cxr(self) -> frozenset[str]:
        images = self._of_ms_cxr.keys() & self._study_of_image.keys()
        return frozenset(self._study_of_image[image].patient_id for image in images)

    @cached_property
    def _masks(self) -> dict[str, list[tuple[str, Path]]]:
        masks: dict[str, list[tuple[str, Path]]] = defaultdict(list)
        folder = self.config.masks
        if folder is not None and not folder.is_dir():
            raise InputError(f"{folder}: no such folder: check source.masks")
        for path in sorted(folder.glob("*__*.png")) if folder else ():
            dicom_id, _, category = path.stem.partition("__")
            masks[dicom_id].append((category, path))
        return masks

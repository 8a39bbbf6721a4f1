"""OpenI (Indiana University): 3,955 public reports, from the official archive or Kaggle's repack.

Official: NLMCXR_reports.tgz (or its folder ecgen-radiology) with one XML a report, and a folder of
`<parentImage id>.png`. Kaggle: indiana_reports.csv, and a folder of `<uid>_IM-....dcm.png`.

Only Kaggle's indiana_projections.csv says which image is frontal; it serves both. No patients are
named: each report counts as one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from data_shards.errors import InputError
from data_shards.files.folders import files_below
from data_shards.records.manifest import DroppedSample
from data_shards.records.study import View
from data_shards.sources.base import Source, SourceConfig
from data_shards.sources.formats.openi_reports import XML, OpeniReport, read_reports
from data_shards.sources.formats.tables import read_rows
from data_shards.sources.image_files import files_by_stem, placed
from data_shards.sources.image_row import ImageRow
from data_shards.sources.values import VIEWS

SUFFIX = ".png"
PROJECTIONS_NAME = "indiana_projections.csv"


class OpeniConfig(SourceConfig):
    """`reports` are NLMCXR_reports.tgz, its folder of XML, or indiana_reports.csv.

    `projections` is indiana_projections.csv, by default beside `reports`. `default_view` is the
    view of the images that it does not name: without the table, of all.
    """

    name: Literal["openi"] = "openi"
    licence: str = "CC BY-NC-ND 4.0"
    reports: Path
    image_root: Path
    projections: Path | None = None
    default_view: View | None = None

    def open(self) -> OpeniSource:
        """The studies of the reports with images."""
        return OpeniSource(self)


class OpeniSource(Source):
    """One study, and one patient, a report (CXR1 ...): with 0 to 6 images.

    Labels are the main headings of MeSH that indexers gave, and `normal`.
    """

    config: OpeniConfig
    views = VIEWS
    images_placed_by = "source.image_root"
    narrowed_by = ", or say by source.projections or source.default_view how images lie"

    def tables(self) -> Sequence[Path]:
        """The reports, as a file or each of the folder, and the table of projections."""
        reports = self.config.reports
        found = list(files_below(reports, XML)) if reports.is_dir() else [reports]
        return (*found, *([self._projections] if self._projections else ()))

    def rows(self) -> Iterator[ImageRow]:
        """Every image of a report. Raises InputError for a report that cannot be read."""
        for report in self._reports:
            for image in self._images_of(report):
                yield ImageRow(
                    report.line,
                    image,
                    placed(image, self._files, self.config.image_root, SUFFIX),
                    patient_id=report.uid,
                    study_id=report.uid,
                    view=self._views.get(image) or self.config.default_view or "",
                    texts=report.texts,
                    labels=report.labels,
                    table=report.table,
                )

    def list_dropped_images(self) -> Sequence[DroppedSample]:
        """Reports without an image, too."""
        bare = sorted(report.uid for report in self._reports if not self._images_of(report))
        dropped = [DroppedSample(key=uid, reason="a report without an image") for uid in bare]
        return (*super().list_dropped_images(), *dropped)

    def _images_of(self, report: OpeniReport) -> Sequence[str]:
        """Their ids: in the XML, or for Kaggle's reports in the table of projections."""
        return report.images if report.images is not None else self._of_report.get(report.uid, ())

    @property
    def _projections(self) -> Path | None:
        if self.config.projections is not None:
            return self.config.projections
        beside = self.config.reports.parent / PROJECTIONS_NAME
        return beside if beside.is_file() else None

    @cached_property
    def _reports(self) -> Sequence[OpeniReport]:
        reports = read_reports(self.config.reports)
        if self._projections is None and any(each.images is None for each in reports):
            raise InputError(
                f"{self.config.reports}: names no images: set source.projections to "
                f"{PROJECTIONS_NAME}"
            )
        return reports

    @cached_property
    def _views(self) -> dict[str, str]:
        if self._projections is None:
            return {}
        columns = ("uid", "filename", "projection")
        views: dict[str, str] = {}
        for row in read_rows(self._projections, columns):
            image = _image_id(row.filled("uid"), row.filled("filename"))
            if image in views:
                raise InputError(f"{row.where}: {row['filename']} is listed twice: remove one")
            views[image] = row["projection"]
        return views

    @cached_property
    def _of_report(self) -> dict[str, list[str]]:
        """For reports that name no images: all that the table of projections lists."""
        reports = {each.uid for each in self._reports}
        images: dict[str, list[str]] = {}
        for image in sorted(self._views):
            uid = image.partition("_")[0]
            if uid not in reports:
                raise InputError(
                    f"{self._projections}: image {image}: no report {uid} in "
                    f"{self.config.reports}: fetch both tables again"
                )
            images.setdefault(uid, []).append(image)
        return images

    @cached_property
    def _files(self) -> dict[str, Path]:
        """By the official id, whatever names the files have."""
        found = files_by_stem([self.config.image_root], frozenset({SUFFIX}))
        return {_image_id("", stem): path for stem, path in found.items()}


def _image_id(uid: str, name: str) -> str:
    """The official id of an image: CXR1_1_IM-0001-3001, of Kaggle's 1_IM-0001-3001.dcm.png."""
    stem = name.removesuffix(SUFFIX).removesuffix(".dcm")
    return stem if stem.startswith("CXR") else f"CXR{uid or stem.partition('_')[0]}_{stem}"

"""The phantom as an archive in the layouts of MIMIC-CXR-JPG 2.0.0 and MS-CXR.

<archive>/files/p10/p10000032/s50414267/<dicom_id>.jpg
<archive>/masks/<dicom_id>__<category>.png            ours: exact masks of the frontals
<archive>/mimic-cxr-2.0.0-{metadata,split,chexpert}.csv.gz
<archive>/mimic-cxr-reports.zip                       files/p10/p10000032/s50414267.txt
<archive>/MS_CXR_Local_Alignment_v1.1.0.csv           boxes with the phrase each illustrates
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from data_shards.files.atomic import write_bytes_atomically
from data_shards.phantom.images.rendering import RenderedStudy, render_study
from data_shards.phantom.reports.report_writer import (
    CHEXPERT_LABELS,
    WrittenReport,
    examination_title,
    write_report,
)
from data_shards.phantom.study import Study

METADATA_COLUMNS = (
    "dicom_id",
    "subject_id",
    "study_id",
    "PerformedProcedureStepDescription",
    "ViewPosition",
    "Rows",
    "Columns",
    "StudyDate",
    "StudyTime",
    "ProcedureCodeSequence_CodeMeaning",
    "ViewCodeSequence_CodeMeaning",
    "PatientOrientationCodeSequence_CodeMeaning",
)
SPLIT_COLUMNS = ("dicom_id", "study_id", "subject_id", "split")
CHEXPERT_COLUMNS = ("subject_id", "study_id", *CHEXPERT_LABELS)
MS_CXR_COLUMNS = (
    "dicom_id",
    "category_name",
    "label_text",
    "path",
    "x",
    "y",
    "w",
    "h",
    "image_width",
    "image_height",
    "split",
)
REPORTS_NAME = "mimic-cxr-reports.zip"
MS_CXR_NAME = "MS_CXR_Local_Alignment_v1.1.0.csv"
MASKS_NAME = "masks"

_VIEW_MEANING = {"PA": "postero-anterior", "AP": "antero-posterior", "LATERAL": "lateral"}
# The largest prime below 10^7: multiplying by a number below it permutes the ids.
_IDS = 9_999_991
# The earliest date a zip file can hold; a fixed one keeps the bytes the same.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)

Row = list[str | int | float]


@dataclass
class ArchiveRows:
    """What the tables and the report archive say of some studies."""

    metadata: list[Row] = field(default_factory=list)
    split: list[Row] = field(default_factory=list)
    chexpert: list[Row] = field(default_factory=list)
    ms_cxr: list[Row] = field(default_factory=list)
    reports: list[tuple[str, str]] = field(default_factory=list)

    def extend(self, other: ArchiveRows) -> None:
        """Append the rows of other studies."""
        self.metadata += other.metadata
        self.split += other.split
        self.chexpert += other.chexpert
        self.ms_cxr += other.ms_cxr
        self.reports += other.reports

    def to_json(self) -> dict[str, Any]:
        """Plain lists; `ArchiveRows(**value)` reads them back."""
        return asdict(self)


def subject_id(seed: int, patient: int) -> str:
    """Eight digits starting with 1, different for every patient of a seed."""
    return str(10_000_000 + _permuted(seed, patient, "subject"))


def study_id(seed: int, study: int) -> str:
    """Eight digits starting with 5, different for every study of a seed."""
    return str(50_000_000 + _permuted(seed, study, "study"))


def dicom_id(seed: int, study: int, view: str) -> str:
    """Five hyphenated groups of eight hexadecimal digits."""
    digits = hashlib.blake2b(f"{seed}/{study}/{view}".encode(), digest_size=20).hexdigest()
    return "-".join(digits[i : i + 8] for i in range(0, 40, 8))


def study_folder(subject: str, study: str) -> PurePosixPath:
    """A study's folder in the archive; with `.txt` appended, its report in the zip file."""
    return PurePosixPath("files") / f"p{subject[:2]}" / f"p{subject}" / f"s{study}"


def write_study(
    archive: Path, study: Study, *, seed: int, height_px: int, noise: float
) -> ArchiveRows:
    """Draw a study, write its images and masks, and return what the tables say of it."""
    rendered = render_study(study, seed=seed, height_px=height_px, noise=noise)
    report = write_report(study, np.random.default_rng([seed, study.number, 2]))
    subject, name = subject_id(seed, study.patient), study_id(seed, study.number)
    folder = study_folder(subject, name)
    (archive / folder).mkdir(parents=True, exist_ok=True)
    rows = ArchiveRows(reports=[(f"{folder}.txt", report.text)])
    labels: Row = [_label(report.labels.get(label)) for label in CHEXPERT_LABELS]
    rows.chexpert.append([subject, name, *labels])
    views: list[tuple[str, ndarray]] = [(study.projection, rendered.frontal)]
    if rendered.lateral is not None:
        views.append(("LATERAL", rendered.lateral))
    for view, image in views:
        image_id = dicom_id(seed, study.number, view)
        _write_image(archive / folder / f"{image_id}.jpg", image, "JPEG", quality=95)
        rows.metadata.append(_metadata_row(study, image_id, subject, name, view, image))
        rows.split.append([image_id, name, subject, study.split])
    frontal_id = dicom_id(seed, study.number, study.projection)
    for category, mask in rendered.masks.items():
        path = archive / MASKS_NAME / f"{frontal_id}__{category}.png"
        _write_image(path, mask.astype(np.uint8) * 255, "PNG", compress_level=1)
    rows.ms_cxr = _ms_cxr_rows(study, rendered, report, frontal_id, folder)
    return rows


def write_tables(archive: Path, rows: ArchiveRows) -> None:
    """Write the tables and the reports of all studies, in the order of their ids.

    The same rows give the same bytes: times in the gzip and zip files are fixed.
    """
    tables = {
        "metadata": (METADATA_COLUMNS, rows.metadata),
        "split": (SPLIT_COLUMNS, rows.split),
        "chexpert": (CHEXPERT_COLUMNS, rows.chexpert),
    }
    for kind, (columns, table) in tables.items():
        compressed = gzip.compress(_csv_text(columns, table).encode(), mtime=0)
        write_bytes_atomically(archive / f"mimic-cxr-2.0.0-{kind}.csv.gz", compressed)
    write_bytes_atomically(archive / MS_CXR_NAME, _csv_text(MS_CXR_COLUMNS, rows.ms_cxr).encode())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as reports:
        for member, text in sorted(rows.reports):
            reports.writestr(zipfile.ZipInfo(member, _ZIP_DATE), text, zipfile.ZIP_DEFLATED)
    write_bytes_atomically(archive / REPORTS_NAME, packed.getvalue())


def _metadata_row(
    study: Study, image_id: str, subject: str, name: str, view: str, image: ndarray
) -> Row:
    title = examination_title(study)
    height, width = image.shape
    hours, minutes = divmod(study.minute_of_day, 60)
    posture = "Recumbent" if study.projection == "AP" else "Erect"
    date = study.when.strftime("%Y%m%d")
    time = f"{hours:02}{minutes:02}00.0"
    described: Row = [title, view, height, width, date, time]
    return [image_id, subject, name, *described, title, _VIEW_MEANING[view], posture]


def _ms_cxr_rows(
    study: Study,
    rendered: RenderedStudy,
    report: WrittenReport,
    image_id: str,
    folder: PurePosixPath,
) -> list[Row]:
    height, width = rendered.frontal.shape
    path = str(folder / f"{image_id}.jpg")
    split = "val" if study.split == "validate" else study.split
    return [
        [
            image_id,
            study.findings[box.finding].category,
            report.phrases[box.finding],
            path,
            *(box.x, box.y, box.width, box.height),
            *(width, height),
            split,
        ]
        for box in rendered.boxes
    ]


def _label(value: int | None) -> str:
    return "" if value is None else f"{value}.0"


def _permuted(seed: int, number: int, kind: str) -> int:
    digest = hashlib.blake2b(f"{seed}/{kind}".encode(), digest_size=16).digest()
    factor = 1 + int.from_bytes(digest[:8], "big") % (_IDS - 1)
    shift = int.from_bytes(digest[8:], "big") % _IDS
    return (number * factor + shift) % _IDS


def _write_image(
    path: Path, image: UInt8[ndarray, "height width"], file_format: str, **options: int
) -> None:
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, file_format, **options)
    # Thousands of files: a sync of each would take longer than drawing it.
    write_bytes_atomically(path, encoded.getvalue(), sync=False)


def _csv_text(columns: Sequence[str], rows: Iterable[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(sorted(rows, key=lambda row: [str(cell) for cell in row]))
    return text.getvalue()

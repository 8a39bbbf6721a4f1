"""The phantom as an archive in the layouts of MIMIC-CXR-JPG 2.0.0 and MS-CXR.

<archive>/files/p10/p10000032/s50414267/<dicom_id>.jpg
<archive>/masks/<dicom_id>__<category>.png            ours: exact masks of the frontals
<archive>/mimic-cxr-2.0.0-{metadata,split,chexpert}.csv.gz
<archive>/mimic-cxr-reports.zip                       files/p10/p10000032/s50414267.txt
<archive>/MS_CXR_Local_Alignment_v1.1.0.csv           boxes with the phrase each illustrates
"""

from __future__ import annotations

import gzip
import io
import zipfile
from typing import Any

import numpy as np
from numpy import ndarray

from data_shards.files.atomic import write_bytes_atomically
from data_shards.phantom.layouts.drawn import (
    Rows,
    csv_bytes,
    draw_study,
    encoded,
    hexadecimal,
    permuted,
    write_file,
)
from data_shards.phantom.reports.report_writer import examination_title
from data_shards.phantom.settings import PhantomConfig
from data_shards.phantom.study import Study

REPORTS_NAME = "mimic-cxr-reports.zip"
MS_CXR_NAME = "MS_CXR_Local_Alignment_v1.1.0.csv"
MASKS_NAME = "masks"

# Of the gzipped tables, by kind.
_HEADERS = {
    "metadata": "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,"
    "Columns,StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,"
    "PatientOrientationCodeSequence_CodeMeaning",
    "split": "dicom_id,study_id,subject_id,split",
    "chexpert": "subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,"
    "Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity,No Finding,Pleural Effusion,"
    "Pleural Other,Pneumonia,Pneumothorax,Support Devices",
}
CHEXPERT_LABELS = _HEADERS["chexpert"].split(",")[2:]
_MS_CXR_HEADER = "dicom_id,category_name,label_text,path,x,y,w,h,image_width,image_height,split"
_VIEW_MEANING = {"PA": "postero-anterior", "AP": "antero-posterior", "LATERAL": "lateral"}
# The earliest date a zip file can hold; a fixed one keeps the bytes the same.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


def importer_settings(config: PhantomConfig) -> dict[str, Any]:
    """Where the importer of MIMIC-CXR finds everything."""
    archive = config.archive
    return {
        "root": archive,
        "reports": archive / REPORTS_NAME,
        "ms_cxr": archive / MS_CXR_NAME,
        "masks": archive / MASKS_NAME,
        # The rules are for 54 real reports; a study here may have the id of one by chance.
        "exceptions": "keep",
    }


def subject_id(seed: int, patient: int) -> str:
    """Eight digits starting with 1, different for every patient of a seed."""
    return str(10_000_000 + permuted(seed, patient, "subject"))


def write_study(config: PhantomConfig, study: Study) -> Rows:
    """Draw a study, write its images and masks, and return what the tables say of it."""
    archive, seed = config.archive, config.seed
    drawn = draw_study(config, study)
    rendered, report = drawn.rendered, drawn.report
    subject = subject_id(seed, study.patient)
    name = str(50_000_000 + permuted(seed, study.number, "study"))
    folder = f"files/p{subject[:2]}/p{subject}/s{name}"
    (archive / MASKS_NAME).mkdir(parents=True, exist_ok=True)
    views: list[tuple[str, ndarray]] = [(study.projection, rendered.frontal)]
    if rendered.lateral is not None:
        views.append(("LATERAL", rendered.lateral))
    labels = [report.labels.get(label) for label in CHEXPERT_LABELS]
    rows: Rows = {
        "metadata": [],
        "split": [],
        "chexpert": [[subject, name, *("" if each is None else f"{each}.0" for each in labels)]],
        "reports": [[f"{folder}.txt", report.text]],
    }
    for view, image in views:
        image_id = _dicom_id(seed, study.number, view)
        write_file(archive / folder / f"{image_id}.jpg", encoded(image, "JPEG", quality=95))
        rows["metadata"].append([image_id, subject, name, *_described(study, view, image)])
        rows["split"].append([image_id, name, subject, study.split])
    frontal_id = _dicom_id(seed, study.number, study.projection)
    for category, mask in rendered.masks.items():
        path = archive / MASKS_NAME / f"{frontal_id}__{category}.png"
        write_file(path, encoded(mask.astype(np.uint8) * 255, "PNG", compress_level=1))
    height, width = rendered.frontal.shape
    split = "val" if study.split == "validate" else study.split
    rows["ms_cxr"] = [
        [
            *(frontal_id, study.findings[box.finding].category, report.phrases[box.finding]),
            *(f"{folder}/{frontal_id}.jpg", box.x, box.y, box.width, box.height),
            *(width, height, split),
        ]
        for box in rendered.boxes
    ]
    return rows


def write_tables(config: PhantomConfig, rows: Rows) -> None:
    """Write the tables and reports of all studies, in the order of their ids, times fixed."""
    archive = config.archive
    for kind, header in _HEADERS.items():
        compressed = gzip.compress(csv_bytes(header, rows[kind]), mtime=0)
        write_bytes_atomically(archive / f"mimic-cxr-2.0.0-{kind}.csv.gz", compressed)
    write_bytes_atomically(archive / MS_CXR_NAME, csv_bytes(_MS_CXR_HEADER, rows["ms_cxr"]))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as reports:
        for member, text in sorted(rows["reports"]):
            reports.writestr(zipfile.ZipInfo(member, _ZIP_DATE), text, zipfile.ZIP_DEFLATED)
    write_bytes_atomically(archive / REPORTS_NAME, packed.getvalue())


def _described(study: Study, view: str, image: ndarray) -> list[str | int]:
    """The metadata's columns from `PerformedProcedureStepDescription` on."""
    title = examination_title(study)
    hours, minutes = divmod(study.minute_of_day, 60)
    date, time = study.when.strftime("%Y%m%d"), f"{hours:02}{minutes:02}00.0"
    posture = "Recumbent" if study.projection == "AP" else "Erect"
    return [title, view, *image.shape, date, time, title, _VIEW_MEANING[view], posture]


def _dicom_id(seed: int, study: int, view: str) -> str:
    """Five hyphenated groups of eight hexadecimal digits."""
    digits = hexadecimal(40, seed, study, view)
    return "-".join(digits[i : i + 8] for i in range(0, 40, 8))

"""MIMIC-CXR-JPG with its reports, as published."""

from __future__ import annotations

import gzip
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.data_shards.sources.tiny_archive import TinyImage, draw_image

EXEMPT: Mapping[str, str] = {}

POSITION_OF_VIEW = {"L": "LATERAL"}


def write(root: Path, images: Sequence[TinyImage]) -> dict[str, Any]:
    """Write `images` below `root`; what a profile says in `source`."""
    for image in images:
        draw_image(root / report_member(image).removesuffix(".txt") / f"{image.id}.jpg")
    write_tables(root, images)
    write_reports(root, images)
    return {"name": "mimic_cxr", "root": root}


def write_tables(root: Path, images: Sequence[TinyImage], *, release: str = "2.0.0") -> None:
    """Metadata, splits, and the labels of the first study."""
    metadata = ["dicom_id,subject_id,study_id,Rows,Columns,ViewPosition"]
    metadata += [
        f"{i.id},{i.patient},{i.study},9,9,{POSITION_OF_VIEW.get(i.view, i.view)}" for i in images
    ]
    split = ["dicom_id,study_id,subject_id,split"]
    split += [f"{i.id},{i.study},{i.patient},{i.split}" for i in images]
    chexpert = ["subject_id,study_id,Atelectasis,Edema,Pneumonia"]
    # The third column of another patient's study of this id must not be joined.
    chexpert += [f"{images[0].patient},{images[0].study},1.0,-1.0,"]
    chexpert += ["10000009,50000003,1.0,1.0,1.0"]
    for kind, rows in (("metadata", metadata), ("split", split), ("chexpert", chexpert)):
        write_packed(root / f"mimic-cxr-{release}-{kind}.csv.gz", *rows)


def write_packed(table: Path, *lines: str) -> None:
    """A gzipped table of these lines, without the time, which a fingerprint would see."""
    table.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0))


def write_reports(root: Path, images: Sequence[TinyImage], *, zipped: bool = True) -> None:
    """A report for every study; one more where an image says another."""
    reports = dict.fromkeys((report_member(image), image.report) for image in images)
    if zipped:
        with (
            warnings.catch_warnings(action="ignore"),
            zipfile.ZipFile(root / "mimic-cxr-reports.zip", "w") as archive,
        ):
            for member, text in reports:
                archive.writestr(member, text)
        return
    for member, text in reports:
        path = root / "mimic-cxr-reports" / member
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def report_member(image: TinyImage) -> str:
    """Where the report of the image's study lies in the archive of reports."""
    return f"files/p{image.patient[:2]}/p{image.patient}/s{image.study}.txt"

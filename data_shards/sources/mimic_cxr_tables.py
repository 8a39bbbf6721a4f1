"""What the tables of MIMIC-CXR-JPG list: images, their splits, and the labels of studies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_shards.errors import InputError
from data_shards.sources.base import ImageRow, StudyRef, label_in, split_in
from data_shards.sources.formats.tables import read_rows

_SUBJECT_ID = re.compile(r"1\d{7}")
_STUDY_ID = re.compile(r"5\d{7}")


@dataclass(frozen=True, slots=True)
class Labels:
    """CheXpert labels of studies: 1, 0, -1 (uncertain) or None (not mentioned)."""

    names: tuple[str, ...]
    values: dict[tuple[str, str], tuple[float | None, ...]]

    def of(self, ref: StudyRef) -> dict[str, float | None]:
        """The study's labels by name; empty when the table does not have the study."""
        values = self.values.get((ref.patient_id, ref.study_id))
        return {} if values is None else dict(zip(self.names, values, strict=True))


def table_paths(root: Path) -> tuple[Path, ...]:
    """The tables of metadata, splits and, if there, labels. Raises InputError for an absent one."""
    paths = []
    for kind in ("metadata", "split", "chexpert"):
        # Of several releases the latest (their names hold 2.0.0 or 2.1.0).
        name = f"mimic-cxr-[0-9]*-{kind}.csv"
        tables = sorted([*root.glob(name), *root.glob(f"{name}.gz")])
        if tables:
            paths.append(tables[-1])
        elif kind != "chexpert":
            raise InputError(
                f"{root}: no mimic-cxr-2.0.0-{kind}.csv.gz (nor of another release, nor unpacked): "
                "set source.root to the folder of MIMIC-CXR-JPG that holds it and files/"
            )
    return tuple(paths)


def study_path(patient_id: str, study_id: str) -> str:
    """Where a study's images lie; with `.txt` added, its report."""
    return f"files/p{patient_id[:2]}/p{patient_id}/s{study_id}"


def image_rows(root: Path) -> Iterator[ImageRow]:
    """The images of the metadata, in the split that the split table says.

    Raises InputError for ids of another form and an image without a split.
    """
    metadata, splits, *_ = table_paths(root)
    split_of_image = {
        row["dicom_id"]: split_in(row, "split") for row in read_rows(splits, ("dicom_id", "split"))
    }
    for row in read_rows(metadata, ("dicom_id", "subject_id", "study_id", "ViewPosition")):
        image, patient, study = (
            row.filled(each) for each in ("dicom_id", "subject_id", "study_id")
        )
        if not (_SUBJECT_ID.fullmatch(patient) and _STUDY_ID.fullmatch(study)):
            raise InputError(
                f"{row.where}: subject {patient!r}, study {study!r}: expected 8 digits that start "
                "with 1 and 8 that start with 5"
            )
        if image not in split_of_image:
            raise InputError(f"{row.where}: image {image} has no line in the split table")
        path = f"{root}/{study_path(patient, study)}/{image}.jpg"
        position, split = row["ViewPosition"], split_of_image[image]
        yield ImageRow(row.line, image, path, patient, study, position, split)


def read_labels(root: Path) -> Labels:
    """The CheXpert labels, or none where the archive has no such table.

    Raises InputError for a study listed twice and a value that is no label.
    """
    names: tuple[str, ...] = ()
    values: dict[tuple[str, str], tuple[float | None, ...]] = {}
    for path in table_paths(root)[2:]:
        for row in read_rows(path, ("subject_id", "study_id")):
            key = (row["subject_id"], row["study_id"])
            if key in values:
                raise InputError(f"{row.where}: study {key[1]} is listed twice")
            names = tuple(each for each in row.cells if each not in ("subject_id", "study_id"))
            values[key] = tuple(label_in(row, name) for name in names)
    return Labels(names, values)

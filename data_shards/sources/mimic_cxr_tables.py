"""What the tables of MIMIC-CXR-JPG list: studies, their images, splits and labels."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import get_args

from data_shards.errors import InputError
from data_shards.records.study import Split, View
from data_shards.sources.formats.tables import read_rows

VIEW_OF_POSITION: dict[str, View] = {"PA": "PA", "AP": "AP", "LATERAL": "L", "LL": "L"}

_SUBJECT_ID = re.compile(r"1\d{7}")
_STUDY_ID = re.compile(r"5\d{7}")


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image by its DICOM id; `view` is None for a position that is no known view."""

    dicom_id: str
    position: str

    @property
    def view(self) -> View | None:
        """PA, AP or L; None for oblique and other positions, and for none given."""
        return VIEW_OF_POSITION.get(self.position)


@dataclass(frozen=True, slots=True)
class ListedStudy:
    """A study with its images in the order of their ids."""

    patient_id: str
    study_id: str
    split: Split
    images: tuple[ListedImage, ...]

    @property
    def folder(self) -> PurePosixPath:
        """Where the study's images lie; with `.txt` added, its report."""
        return (
            PurePosixPath("files")
            / f"p{self.patient_id[:2]}"
            / f"p{self.patient_id}"
            / f"s{self.study_id}"
        )


@dataclass(frozen=True, slots=True)
class Labels:
    """CheXpert labels of studies: 1, 0, -1 (uncertain) or None (not mentioned)."""

    names: tuple[str, ...]
    values: dict[tuple[str, str], tuple[float | None, ...]]

    def of(self, study: ListedStudy) -> dict[str, float | None]:
        """The study's labels by name; empty when the table does not have the study."""
        values = self.values.get((study.patient_id, study.study_id))
        return {} if values is None else dict(zip(self.names, values, strict=True))


def table_paths(root: Path) -> tuple[Path, ...]:
    """What `read_studies` and `read_labels` read: metadata, split and, if there, chexpert."""
    kinds = ("metadata", "split", *(["chexpert"] if _tables(root, "chexpert") else []))
    return tuple(_find_table(root, kind) for kind in kinds)


def read_studies(root: Path) -> dict[str, ListedStudy]:
    """Studies by id. The metadata lists the images, the split table places them.

    Raises InputError for an absent table or column, an id of another form, an image or study
    listed twice, an image without a split and a study in two splits.
    """
    metadata = _find_table(root, "metadata")
    split_of_image = _read_splits(_find_table(root, "split"))
    images: dict[str, list[ListedImage]] = defaultdict(list)
    owner: dict[str, tuple[str, Split]] = {}
    seen: set[str] = set()
    columns = ("dicom_id", "subject_id", "study_id", "ViewPosition")
    for line, row in read_rows(metadata, columns):
        where = f"{metadata}: line {line}"
        dicom_id, patient_id, study_id, position = (row[column] for column in columns)
        if not (_SUBJECT_ID.fullmatch(patient_id) and _STUDY_ID.fullmatch(study_id)):
            raise InputError(
                f"{where}: subject {patient_id!r}, study {study_id!r}: expected 8 digits that "
                "start with 1 and 8 that start with 5"
            )
        if dicom_id in seen:
            raise InputError(f"{where}: image {dicom_id} is listed twice: remove one line")
        seen.add(dicom_id)
        if dicom_id not in split_of_image:
            raise InputError(f"{where}: image {dicom_id} has no line in the split table")
        place = (patient_id, split_of_image[dicom_id])
        if owner.setdefault(study_id, place) != place:
            raise InputError(
                f"{where}: study {study_id} is of patient {patient_id} in {place[1]}, and above "
                f"of patient {owner[study_id][0]} in {owner[study_id][1]}: correct one line"
            )
        images[study_id].append(ListedImage(dicom_id, position.strip().upper()))
    return {
        study_id: ListedStudy(
            patient_id, study_id, split, tuple(sorted(images[study_id], key=lambda i: i.dicom_id))
        )
        for study_id, (patient_id, split) in owner.items()
    }


def read_labels(root: Path) -> Labels:
    """The CheXpert labels, or none where the archive has no such table.

    Raises InputError for a study listed twice and a value that is not 1, 0, -1 or empty.
    """
    if not _tables(root, "chexpert"):
        return Labels((), {})
    path = _find_table(root, "chexpert")
    names: tuple[str, ...] = ()
    values: dict[tuple[str, str], tuple[float | None, ...]] = {}
    for line, row in read_rows(path, ("subject_id", "study_id")):
        key = (row.pop("subject_id"), row.pop("study_id"))
        if key in values:
            raise InputError(f"{path}: line {line}: study {key[1]} is listed twice")
        names = tuple(row)
        values[key] = tuple(_label(path, line, text) for text in row.values())
    return Labels(names, values)


# Shared objects: 227,827 studies have 14 labels each.
_LABEL_OF_TEXT: dict[str, float | None] = {
    **{"": None, "nan": None, "NaN": None},
    **{"1": 1.0, "1.0": 1.0, "0": 0.0, "0.0": 0.0, "-1": -1.0, "-1.0": -1.0},
}


def _label(path: Path, line: int, text: str) -> float | None:
    if text not in _LABEL_OF_TEXT:
        raise InputError(f"{path}: line {line}: label {text!r}: expected 1, 0, -1 or nothing")
    return _LABEL_OF_TEXT[text]


def _read_splits(path: Path) -> dict[str, Split]:
    return dict(_split_rows(path))


def _split_rows(path: Path) -> Iterator[tuple[str, Split]]:
    splits: dict[str, Split] = {split: split for split in get_args(Split)}
    for line, row in read_rows(path, ("dicom_id", "split")):
        if row["split"] not in splits:
            raise InputError(
                f"{path}: line {line}: split {row['split']!r}: expected {', '.join(splits)}"
            )
        yield row["dicom_id"], splits[row["split"]]


def _tables(root: Path, kind: str) -> list[Path]:
    """The tables of a kind, oldest release first (their names hold 2.0.0 or 2.1.0)."""
    return sorted(
        path
        for suffix in (".csv", ".csv.gz")
        for path in root.glob(f"mimic-cxr-[0-9]*-{kind}{suffix}")
    )


def _find_table(root: Path, kind: str) -> Path:
    tables = _tables(root, kind)
    if not tables:
        raise InputError(
            f"{root}: no mimic-cxr-2.0.0-{kind}.csv.gz (nor of another release, nor unpacked): "
            "set source.root to the folder of MIMIC-CXR-JPG that holds it and files/"
        )
    return tables[-1]

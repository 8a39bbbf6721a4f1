"""What the files of MIMIC-CXR-JPG hold: images, splits and labels in tables, and the reports."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from data_shards.errors import InputError
from data_shards.records.study import Split
from data_shards.sources.formats.tables import Row, read_rows
from data_shards.sources.image_row import ImageRow
from data_shards.sources.values import label_in, split_in

_SUBJECT_ID = re.compile(r"1\d{7}")
_STUDY_ID = re.compile(r"5\d{7}")

# The 54 reports that the published parser (MIT-LCP/mimic-cxr, `txt/section_parser.py`) handles by
# hand, and where the conclusion of each stands: under a wrong header (`section`), under none (from
# character `first` to before `end`), or, with neither, nowhere. LoVT and the official sectioned
# table leave all 54 out.
EXCEPTIONS: dict[str, Row] = {
    row["study_id"]: row
    for row in read_rows(
        Path(__file__).with_name("mimic_cxr_exceptions.csv"),
        ("study_id", "section", "first", "end"),
    )
}
WITHOUT_FINDINGS = frozenset(
    study for study, row in EXCEPTIONS.items() if not (row["section"] or row["first"])
)


def conclusion_by_hand(study_id: str, raw: str, sections: Mapping[str, str]) -> str:
    """The conclusion of an exceptional report by its published rule; empty if it has none."""
    row = EXCEPTIONS[study_id]
    if row["first"]:
        return raw[int(row["first"]) : int(row["end"])].strip()
    return sections.get(row["section"], "")


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
    """The images of the metadata, in the split that the split table says, with CheXpert's labels.

    Raises InputError for ids of another form, an image without a split, and images of the split
    table that the metadata lack.
    """
    metadata, splits, *_ = table_paths(root)
    split_of_image, labels = _read_splits(splits), _read_labels(root)
    listed = set()
    for row in read_rows(metadata, ("dicom_id", "subject_id", "study_id", "ViewPosition")):
        image = row.filled("dicom_id")
        patient, study = ids = _ids(row)
        if image not in split_of_image:
            raise InputError(f"{row.where}: image {image} has no line in the split table")
        listed.add(image)
        path = f"{root}/{study_path(patient, study)}/{image}.jpg"
        position, split = row["ViewPosition"], split_of_image[image]
        yield ImageRow(
            row.line, image, path, patient, study, position, split, labels=labels.get(ids)
        )
    if lacking := split_of_image.keys() - listed:
        raise InputError(
            f"{metadata}: no line of {len(lacking):,} of the {len(split_of_image):,} images in "
            f"{splits.name} (first: {min(lacking)}): fetch both tables again"
        )


def _ids(row: Row) -> tuple[str, str]:
    patient, study = row.filled("subject_id"), row.filled("study_id")
    if not (_SUBJECT_ID.fullmatch(patient) and _STUDY_ID.fullmatch(study)):
        raise InputError(
            f"{row.where}: subject {patient!r}, study {study!r}: expected 8 digits that start "
            "with 1 and 8 that start with 5: fetch the table again"
        )
    return patient, study


def _read_splits(path: Path) -> dict[str, Split]:
    splits: dict[str, Split] = {}
    for row in read_rows(path, ("dicom_id", "split")):
        image, split = row["dicom_id"], split_in(row, "split")
        if splits.setdefault(image, split) != split:
            raise InputError(
                f"{row.where}: image {image} is in {split!r}, and before in {splits[image]!r}: "
                "keep one of them"
            )
    return splits


def _read_labels(root: Path) -> dict[tuple[str, str], dict[str, float | None]]:
    """CheXpert's labels of each patient and study; none where the archive has no such table."""
    labels: dict[tuple[str, str], dict[str, float | None]] = {}
    # Few of the labels' combinations occur: studies share them, for there are very many.
    known: dict[tuple[float | None, ...], dict[str, float | None]] = {}
    for path in table_paths(root)[2:]:
        for row in read_rows(path, ("subject_id", "study_id")):
            key = _ids(row)
            if key in labels:
                raise InputError(f"{row.where}: study {key[1]} is listed twice: keep one of them")
            here = {
                name: label_in(row, name)
                for name in row.cells
                if name not in ("subject_id", "study_id")
            }
            labels[key] = known.setdefault(tuple(here.values()), here)
    return labels


class BadReportError(Exception):
    """A report that is absent or cannot be read; the message says why."""


class ReportArchive:
    """Report texts by path below the archive (`files/p10/p10000032/s50414267.txt`).

    Opened by the process that reads. Raises InputError for a zip file that is broken or holds a
    report twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        if path.is_dir():
            return
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise InputError(
                f"{path}: not a readable zip file ({error}): fetch it again"
            ) from error
        [(name, count)] = Counter(self._zip.namelist()).most_common(1) or [("", 0)]
        if count > 1:
            raise InputError(f"{path}: holds {name} more than once: keep one report of each study")

    def read(self, member: PurePosixPath) -> str:
        """The text of one report. Raises BadReportError."""
        try:
            if self._zip is None:
                payload = (self.path / member).read_bytes()
            else:
                payload = self._zip.read(str(member))
        except (KeyError, FileNotFoundError) as error:
            raise BadReportError("no report in the archive") from error
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise BadReportError("the report is damaged") from error
        try:
            text = payload.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadReportError("the report is not UTF-8 text") from error
        if not text.strip():
            raise BadReportError("the report is empty")
        return text

    def fingerprint(self) -> str:
        """SHA-256 of the names, sizes and CRC-32s in the zip file's directory.

        Empty for an unpacked folder: to read MIMIC-CXR's 227,835 files takes minutes, and file
        times lie. Reports edited there go unnoticed.
        """
        if self._zip is None:
            return ""
        members = self._zip.infolist()
        listed = sorted((member.filename, member.file_size, member.CRC) for member in members)
        return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def find_reports(root: Path, reports: Path | None) -> ReportArchive:
    """The archive `reports` names, or the one in or beside `root`. InputError lists the places."""
    names = ("mimic-cxr-reports.zip", "mimic-cxr-reports")
    beside = [folder / name for folder in (root, root.parent) for name in names]
    places = beside if reports is None else [reports]
    for place in places:
        if place.is_file() or (place / "files").is_dir():
            return ReportArchive(place)
    raise InputError(
        f"no reports at {' or '.join(str(place) for place in places)}: set source.reports to "
        "mimic-cxr-reports.zip, or to the folder that holds its files/"
    )

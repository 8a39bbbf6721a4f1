"""MS-CXR: boxes with the sentence each illustrates, on images of MIMIC-CXR."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from data_shards.errors import InputError
from data_shards.records.study import SPLITS, Split
from data_shards.sources.formats.tables import read_rows

_BOX_COLUMNS = ("x", "y", "w", "h")


@dataclass(frozen=True, slots=True)
class PhraseBox:
    """A box in pixels of the original image, its finding and its sentence.

    Several boxes may share one sentence: its region is their union.
    """

    category: str
    phrase: str
    x: float
    y: float
    width: float
    height: float


def read_ms_cxr(path: Path) -> dict[str, tuple[PhraseBox, ...]]:
    """Boxes by DICOM id, from the CSV or the COCO JSON, or the folder that holds one.

    The CSV's own `split` is not MIMIC-CXR's and is not read. Raises InputError for a file in
    neither layout and for a box that is not four numbers.
    """
    file = annotation_file(path)
    boxes: dict[str, list[PhraseBox]] = defaultdict(list)
    for dicom_id, box in _from_json(file) if file.suffix == ".json" else _from_csv(file):
        boxes[dicom_id].append(box)
    return {dicom_id: tuple(each) for dicom_id, each in boxes.items()}


def ms_cxr_overlap(
    ms_cxr_images: Iterable[str], patient_and_split_of_image: Mapping[str, tuple[str, Split]]
) -> dict[str, Any]:
    """How many of MS-CXR's images and patients each split of an archive holds.

    `images_absent` are those that the archive does not list.
    """
    found = {image: patient_and_split_of_image.get(image) for image in dict.fromkeys(ms_cxr_images)}
    present = [each for each in found.values() if each is not None]
    return {
        "images_by_split": {split: sum(s == split for _, s in present) for split in SPLITS},
        "patients_by_split": {
            split: len({p for p, s in present if s == split}) for split in SPLITS
        },
        "images_absent": len(found) - len(present),
    }


def annotation_file(path: Path) -> Path:
    """The file that `read_ms_cxr` reads. Raises InputError for a folder without one."""
    if not path.is_dir():
        return path
    # Both layouts hold the same boxes.
    for pattern in ("*.csv", "*.json"):
        files = sorted(path.glob(pattern))
        if files:
            return files[-1]
    raise InputError(f"{path}: no .csv or .json of MS-CXR: set source.ms_cxr to its file")


def _from_csv(file: Path) -> Iterator[tuple[str, PhraseBox]]:
    columns = ("dicom_id", "category_name", "label_text", *_BOX_COLUMNS)
    for row in read_rows(file, columns):
        box = [row[column] for column in _BOX_COLUMNS]
        yield (
            row["dicom_id"],
            _phrase_box(row.where, row["category_name"], row["label_text"], box),
        )


def _from_json(file: Path) -> Iterator[tuple[str, PhraseBox]]:
    try:
        value = json.loads(file.read_bytes())
        categories = {each["id"]: str(each["name"]) for each in value["categories"]}
        images = {each["id"]: _dicom_id(each) for each in value["images"]}
        annotations = [
            (
                images[each["image_id"]],
                categories[each["category_id"]],
                str(each["label_text"]),
                each["bbox"],
            )
            for each in value["annotations"]
        ]
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such file: check source.ms_cxr") from error
    except ValueError as error:
        raise InputError(f"{file}: not valid JSON ({error}): fetch it again") from error
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{file}: not MS-CXR's COCO layout (images, annotations with bbox and label_text, "
            f"categories): {error!r}"
        ) from error
    for number, (dicom_id, category, phrase, box) in enumerate(annotations):
        yield dicom_id, _phrase_box(f"{file}: annotation {number}", category, phrase, box)


def _dicom_id(image: Mapping[str, Any]) -> str:
    return PurePosixPath(str(image.get("path") or image["file_name"])).stem


def _phrase_box(where: str, category: str, phrase: str, box: Any) -> PhraseBox:
    try:
        x, y, width, height = (float(each) for each in box)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: a box is x, y, width, height, found {box!r}") from error
    if not (width > 0 and height > 0):
        raise InputError(f"{where}: a box of {width} x {height} pixels: correct or remove it")
    return PhraseBox(category, phrase, x, y, width, height)

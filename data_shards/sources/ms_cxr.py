"""MS-CXR: boxes with the sentence each illustrates, on images of MIMIC-CXR."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from data_shards.errors import InputError
from data_shards.records.study import SPLITS, Box
from data_shards.sources.base import StudyRef
from data_shards.sources.formats.cells import text_in
from data_shards.sources.formats.json_values import read_json
from data_shards.sources.formats.tables import read_rows

_BOX_COLUMNS = ("x", "y", "w", "h")


def read_ms_cxr(path: Path) -> dict[str, list[Annotation]]:
    """Annotations by DICOM id; boxes in pixels of the original, as if of a study's first image.

    Read from the CSV or the COCO JSON, or the folder that holds one. The CSV's own `split` is not
    MIMIC-CXR's and is not read. Several boxes may share one sentence: its region is their union.
    Raises InputError for a file in neither layout and for a box that is not four numbers.
    """
    found: dict[str, list[Annotation]] = defaultdict(list)
    for each in read_annotations(path):
        found[each.dicom_id].append(each)
    return dict(found)


class Annotation(NamedTuple):
    """One box, and what its line says of the image: its path in MIMIC-CXR-JPG, MS-CXR's split, and
    the width and height that the box was drawn on.

    Release 1.0 says no split.
    """

    line: int
    where: str
    dicom_id: str
    path: str
    split: str
    size_px: tuple[int, int] | None
    box: Box


def read_annotations(path: Path) -> Iterator[Annotation]:
    """The boxes in the order of the file; errors are those of `read_ms_cxr`."""
    file = annotation_file(path)
    found = _from_json(file) if file.suffix == ".json" else _from_csv(file)
    for line, where, image, size, category, phrase, numbers in found:
        try:
            x, y, width, height = (float(each) for each in numbers)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{where}: a box is x, y, width, height, found {numbers!r}: correct it"
            ) from error
        if not category:
            raise InputError(f"{where}: category_name is empty: fill it in, or fetch it again")
        if not (width > 0 and height > 0 and math.isfinite(x + y + width + height)):
            place = f"{width} x {height} pixels at {x}, {y}"
            raise InputError(f"{where}: a box of {place}: correct or remove it")
        box = Box(0, x, y, width, height, category, phrase)
        yield Annotation(line, where, *image, _size(where, size), box)


def _size(where: str, written: Sequence[Any]) -> tuple[int, int] | None:
    """Width and height, None where the file says neither."""
    if not any(map(text_in, written)):
        return None
    try:
        width, height = (int(float(text_in(each))) for each in written)
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"{where}: an image of {written[0]} x {written[1]} px: whole numbers are wanted: "
            "fetch it again"
        ) from error
    return width, height


def ms_cxr_overlap(
    ms_cxr_images: Iterable[str], study_of_image: Mapping[str, StudyRef]
) -> dict[str, Any]:
    """How many of MS-CXR's images and patients each split of an archive holds, or none does."""
    images = set(ms_cxr_images)
    present = [study_of_image[each] for each in images & study_of_image.keys()]
    patients = {(study.patient_id, study.split) for study in present}
    return {
        "images_by_split": {split: sum(s.split == split for s in present) for split in SPLITS},
        "patients_by_split": {split: sum(s == split for _, s in patients) for split in SPLITS},
        "images_absent": len(images) - len(present),
    }


def annotation_file(path: Path) -> Path:
    """The file that `read_ms_cxr` reads. Raises InputError for a folder without one."""
    if not path.is_dir():
        return path
    # Both layouts hold the same boxes.
    files = [*sorted(path.glob("*.json")), *sorted(path.glob("*.csv"))]
    if not files:
        raise InputError(f"{path}: no .csv or .json of MS-CXR: set source.ms_cxr to its file")
    return files[-1]


# Line, where it stands, (DICOM id, path, split), the image's size, category, phrase, and the
# numbers of the box.
_Found = tuple[int, str, tuple[str, str, str], Sequence[Any], str, str, Any]


def _from_csv(file: Path) -> Iterator[_Found]:
    names = ("dicom_id", "category_name", "label_text")
    for row in read_rows(file, (*names, *_BOX_COLUMNS)):
        dicom_id, category, phrase = (row[name] for name in names)
        path, split = (row[name] if name in row.cells else "" for name in ("path", "split"))
        size = [row[name] if name in row.cells else "" for name in ("image_width", "image_height")]
        numbers = [row[column] for column in _BOX_COLUMNS]
        yield row.line, row.where, (dicom_id, path, split), size, category, phrase, numbers


def _from_json(file: Path) -> list[_Found]:
    value = read_json(file)
    try:
        categories = {each["id"]: text_in(each["name"]) for each in value["categories"]}
        images = {
            each["id"]: (each.get("path") or each["file_name"], text_in(each.get("split")))
            for each in value["images"]
        }
        sizes = {each["id"]: (each.get("width"), each.get("height")) for each in value["images"]}
        return [
            (
                number,
                f"{file}: annotation {number}",
                (PurePosixPath(images[each["image_id"]][0]).stem, *images[each["image_id"]]),
                sizes[each["image_id"]],
                categories[each["category_id"]],
                text_in(each["label_text"]),
                each["bbox"],
            )
            for number, each in enumerate(value["annotations"])
        ]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{file}: not MS-CXR's COCO layout (images, annotations with bbox and label_text, "
            f"categories): {error!r}: fetch it again"
        ) from error

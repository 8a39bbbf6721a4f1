"""The phantom as NIH ChestX-ray8 with boxes: see `sources/nih_boxes.py` for the layout."""

from __future__ import annotations

from typing import Any

import numpy as np

from data_shards.files.atomic import write_bytes_atomically, write_text_atomically
from data_shards.phantom.images.findings import Category
from data_shards.phantom.layouts.drawn import Rows, csv_bytes, draw_study, encoded, write_file
from data_shards.phantom.settings import PhantomConfig
from data_shards.phantom.study import Study

# Their word for each of ours; those of which they have no boxes are not there.
FINDINGS: dict[Category, str] = {
    "Atelectasis": "Atelectasis",
    "Cardiomegaly": "Cardiomegaly",
    "Consolidation": "Infiltrate",
    "Lung Lesion": "Nodule",
    "Lung Opacity": "Mass",
    "Pleural Effusion": "Effusion",
    "Pneumonia": "Pneumonia",
    "Pneumothorax": "Pneumothorax",
}
# Every so many images are stored with colour and transparency, as some of theirs are.
RGBA_EVERY = 7
_IN_ENTRIES = {"Infiltrate": "Infiltration"}
_ENTRIES_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)


def write_study(config: PhantomConfig, study: Study) -> Rows:
    """A study's frontal, its boxes, and its row in the table of all images."""
    drawn = draw_study(config, study)
    name = f"{study.patient + 1:08d}_{study.number % 1000:03d}.png"
    image = drawn.rendered.frontal
    if study.number % RGBA_EVERY == 0:
        image = np.dstack([image, image, image, np.full_like(image, 255)])
    folder = config.archive / f"images_{1 + study.number % 12:03d}" / "images"
    write_file(folder / name, encoded(image, "PNG", compress_level=1))
    boxes = [
        [name, FINDINGS[category], *(f"{n}.0" for n in (box.x, box.y, box.width, box.height))]
        for box in drawn.rendered.boxes
        if (category := study.findings[box.finding].category) in FINDINGS
    ]
    found = sorted({_IN_ENTRIES.get(each[1], each[1]) for each in boxes})
    if any(each.category == "Edema" for each in study.findings):
        found.append("Edema")
    person = [study.patient + 1, 40, study.anatomy.sex]
    size = [*image.shape[1::-1], 0.143, 0.143]
    labels = "|".join(found) or "No Finding"
    return {
        "boxes": boxes,
        "entries": [[name, labels, 0, *person, study.projection, *size, ""]],
        "test_list": [[name]],
    }


def write_tables(config: PhantomConfig, rows: Rows) -> None:
    """Boxes under the header with commas in it, entries, and the test list: all of them here."""
    archive = config.archive
    boxes = [[*row, "", "", ""] for row in rows["boxes"]]
    header = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
    write_bytes_atomically(archive / "BBox_List_2017.csv", csv_bytes(header, boxes))
    entries = csv_bytes(_ENTRIES_HEADER, rows["entries"])
    write_bytes_atomically(archive / "Data_Entry_2017.csv", entries)
    listed = "\n".join(sorted(name for (name,) in rows["test_list"]))
    write_text_atomically(archive / "test_list.txt", f"{listed}\n")


def importer_settings(config: PhantomConfig) -> dict[str, Any]:
    """Where the importer of NIH's boxes finds everything."""
    return {"root": config.archive}

"""The phantom as RSNA's pneumonia challenge, stage 2: see `sources/rsna.py` for the layout.

Pneumonia is what opacifies a lung: consolidation, opacity and pneumonia. Patients are NIH's, told
by the organisers' mapping.
"""

from __future__ import annotations

import json
from typing import Any

from data_shards.files.atomic import write_bytes_atomically, write_text_atomically
from data_shards.phantom.images.findings import Category
from data_shards.phantom.layouts.dicom import dicom_bytes, uid
from data_shards.phantom.layouts.drawn import (
    Rows,
    csv_bytes,
    draw_study,
    hexadecimal,
    permuted,
    write_file,
)
from data_shards.phantom.settings import PhantomConfig
from data_shards.phantom.study import Study

POSITIVE: tuple[Category, ...] = ("Consolidation", "Lung Opacity", "Pneumonia")
_IMAGES_NAME = "stage_2_train_images"
_MAPPING_NAME = "pneumonia-challenge-dataset-mappings_2018.json"


def write_study(config: PhantomConfig, study: Study) -> Rows:
    """A study's frontal, and its rows: one a box."""
    drawn = draw_study(config, study)
    digits = hexadecimal(32, config.seed, study.number, "rsna")
    image = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    content = dicom_bytes(
        drawn.rendered.frontal,
        name=uid(4, config.seed, study.number),
        view=study.projection,
        jpeg=True,
    )
    write_file(config.archive / _IMAGES_NAME / f"{image}.dcm", content)
    boxes = drawn.boxes_of(*POSITIVE)
    name = "Lung Opacity" if boxes else "No Lung Opacity / Not Normal"
    if not study.findings:
        name = "Normal"
    cells: list[list[Any]] = [[f"{n}.0" for n in (b.x, b.y, b.width, b.height)] for b in boxes]
    cells = cells or [[""] * 4]
    patient = 1 + permuted(config.seed, study.patient, "nih") % 99_999
    return {
        "labels": [[image, *each, int(bool(boxes))] for each in cells],
        "classes": [[image, name] for _ in cells],
        "mapping": [[image, f"{patient:08d}_{study.number % 1000:03d}.png"]],
    }


def write_tables(config: PhantomConfig, rows: Rows) -> None:
    """The tables of boxes and of classes, and the mapping to NIH."""
    for name, header, kind in (
        ("stage_2_train_labels.csv", "patientId,x,y,width,height,Target", "labels"),
        ("stage_2_detailed_class_info.csv", "patientId,class", "classes"),
    ):
        write_bytes_atomically(config.archive / name, csv_bytes(header, rows[kind]))
    mapping = [{"subset_img_id": ours, "img_id": nih} for ours, nih in sorted(rows["mapping"])]
    write_text_atomically(config.archive / _MAPPING_NAME, json.dumps(mapping, indent=1))


def importer_settings(config: PhantomConfig) -> dict[str, Any]:
    """Where the importer of RSNA finds everything."""
    return {"root": config.archive, "nih_mapping": config.archive / _MAPPING_NAME}

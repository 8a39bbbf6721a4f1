"""A table of images and reports."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.data_shards.sources.tiny_archive import TinyImage, draw_image

EXEMPT: Mapping[str, str] = {
    "a study of two patients": "ids of studies count within a patient",
}


def write(root: Path, images: Sequence[TinyImage]) -> dict[str, Any]:
    """Write `images` below `root`; what a profile says in `source`."""
    for image in images:
        draw_image(root / "images" / f"{image.id}.png")
    header = ("image", "patient", "study", "view", "split", "text")
    with (root / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                header,
                *((f"{i.id}.png", i.patient, i.study, i.view, i.split, i.report) for i in images),
            ]
        )
    columns = {"patient_id": "patient", "study_id": "study", "view": "view", "split": "split"}
    return {
        "name": "csv_pairs",
        "table": root / "pairs.csv",
        "image_root": root / "images",
        "columns": {**columns, "report": "text"},
    }

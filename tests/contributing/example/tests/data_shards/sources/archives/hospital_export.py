"""An export of one hospital."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.data_shards.sources.tiny_archive import TinyImage, draw_image

EXEMPT: Mapping[str, str] = {
    "a patient in two splits": "no split is published",
    "an unknown split": "no split is published",
    "two reports of one study": "one file an exam",
}
_PROJECTIONS = {"L": "lateral"}


def write(root: Path, images: Sequence[TinyImage]) -> dict[str, Any]:
    """Write `images` below `root`; what a profile says in `source`."""
    (root / "reports").mkdir()
    for image in images:
        draw_image(root / "images" / f"{image.id}.png")
        (root / "reports" / f"{image.study}.txt").write_text(image.report)
    header = ("file", "patient", "exam", "projection")
    rows = [(f"{i.id}.png", i.patient, i.study, _PROJECTIONS.get(i.view, i.view)) for i in images]
    with (root / "exams.tsv").open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([header, *rows])
    return {"name": "hospital_export", "root": root}

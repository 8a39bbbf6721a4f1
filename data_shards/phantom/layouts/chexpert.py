"""The phantom as CheXpert (small): see `sources/chexpert.py` for the layout.

The test split is valid.csv, as it is for whoever reports on CheXpert.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from data_shards.files.atomic import write_bytes_atomically
from data_shards.phantom.layouts.drawn import Rows, csv_bytes, draw_study, encoded, write_file
from data_shards.phantom.settings import PhantomConfig
from data_shards.phantom.study import Study

LABELS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
_HEADER = ",".join(("Path,Sex,Age,Frontal/Lateral,AP/PA", *LABELS))
_PREFIX = "CheXpert-v1.0-small"


def write_study(config: PhantomConfig, study: Study) -> Rows:
    """A study's images, and a row each."""
    drawn = draw_study(config, study)
    part = "valid" if study.split == "test" else "train"
    folder = f"{part}/patient{study.patient + 1:05d}/study{study.number + 1}"
    age = 18 + int(np.random.default_rng([config.seed, study.patient, 5]).integers(73))
    person = ["Male" if study.anatomy.sex == "M" else "Female", age]
    labels = [drawn.report.labels.get(label) for label in LABELS]
    cells = ["" if each is None else f"{each}.0" for each in labels]
    views = [("frontal", drawn.rendered.frontal, ["Frontal", study.projection])]
    if drawn.rendered.lateral is not None:
        views.append(("lateral", drawn.rendered.lateral, ["Lateral", ""]))
    rows = []
    for number, (name, image, view) in enumerate(views, start=1):
        path = f"{folder}/view{number}_{name}.jpg"
        write_file(config.archive / path, encoded(image, "JPEG", quality=95))
        rows.append([f"{_PREFIX}/{path}", *person, *view, *cells])
    return {part: rows}


def write_tables(config: PhantomConfig, rows: Rows) -> None:
    """The tables of both parts."""
    for part in ("train", "valid"):
        content = csv_bytes(_HEADER, rows.get(part, []))
        write_bytes_atomically(config.archive / f"{part}.csv", content)


def importer_settings(config: PhantomConfig) -> dict[str, Any]:
    """Where the importer of CheXpert finds everything."""
    return {"root": config.archive}

"""The phantom as Object-CXR: see `sources/object_cxr.py` for the layout.

The world has no foreign objects, so that coins, bars and pins are laid on the frontal here, by
(seed, study) alone. The test split is dev.csv.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw

from data_shards.files.atomic import write_bytes_atomically
from data_shards.phantom.layouts.drawn import Rows, csv_bytes, draw_study, encoded, write_file
from data_shards.phantom.settings import PhantomConfig
from data_shards.phantom.study import Study

# Brighter than anything in a chest.
_METAL = 250


def write_study(config: PhantomConfig, study: Study) -> Rows:
    """A study's frontal with none to three objects on it, and its row."""
    rng = np.random.default_rng([config.seed, study.number, 6])
    image, items = with_objects(draw_study(config, study).rendered.frontal, rng)
    part = "dev" if study.split == "test" else "train"
    name = f"{study.number + 1:05d}.jpg"
    write_file(config.archive / part / name, encoded(image, "JPEG", quality=95))
    return {part: [[name, ";".join(items)]]}


def with_objects(
    frontal: UInt8[ndarray, "height width"], rng: np.random.Generator
) -> tuple[UInt8[ndarray, "height width"], list[str]]:
    """The frontal with objects, and how the annotators outlined each of them."""
    image = Image.fromarray(frontal)
    draw, side = ImageDraw.Draw(image), min(image.size)
    items = []
    for _ in range(rng.choice(4, p=(0.5, 0.25, 0.15, 0.1))):
        width, height = (int(each) for each in rng.integers(side // 16, side // 5, 2))
        x, y = (int(rng.integers(2, side - size - 2)) for size in (width, height))
        corners = [x, y, x + width, y + height]
        kind = int(rng.integers(3))
        if kind == 0:
            draw.rectangle(corners, fill=_METAL)
        elif kind == 1:
            draw.ellipse(corners, fill=_METAL)
        else:
            # A pin: three corners, none of them on the diagonal.
            corners = [x, y + height // 3, x + width, y, x + width // 2, y + height]
            draw.polygon(corners, fill=_METAL)
        items.append(" ".join(map(str, (kind, *corners))))
    return np.asarray(image), items


def write_tables(config: PhantomConfig, rows: Rows) -> None:
    """The tables of both parts."""
    for part in ("train", "dev"):
        content = csv_bytes("image_name,annotation", rows.get(part, []))
        write_bytes_atomically(config.archive / f"{part}.csv", content)


def importer_settings(config: PhantomConfig) -> dict[str, Any]:
    """Where the importer of Object-CXR finds everything."""
    return {"root": config.archive}

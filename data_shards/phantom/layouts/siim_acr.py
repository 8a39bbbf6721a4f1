"""The phantom as SIIM-ACR's pneumothorax challenge: see `sources/siim_acr.py` for the layout."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from data_shards.files.atomic import write_bytes_atomically
from data_shards.phantom.layouts.dicom import dicom_bytes, uid
from data_shards.phantom.layouts.drawn import Rows, csv_bytes, draw_study, write_file
from data_shards.phantom.settings import PhantomConfig
from data_shards.phantom.study import Study

_IMAGES_NAME = "dicom-images-train"
_SEPARATOR = " "


def write_study(config: PhantomConfig, study: Study) -> Rows:
    """A study's frontal, and a row for each side of the chest that has a pneumothorax."""
    drawn = draw_study(config, study)
    image = uid(4, 8323329, 1 + config.seed, study.number)
    folders = (uid(2, 8323329, study.number), uid(3, 8323329, study.number))
    content = dicom_bytes(
        drawn.rendered.frontal, name=image, view=study.projection, jpeg=bool(study.number % 2)
    )
    write_file(config.archive.joinpath(_IMAGES_NAME, *folders, f"{image}.dcm"), content)
    mask = drawn.mask_of("Pneumothorax")
    middle = mask.shape[1] // 2
    halves = [np.zeros_like(mask), np.zeros_like(mask)]
    halves[0][:, :middle], halves[1][:, middle:] = mask[:, :middle], mask[:, middle:]
    told = [relative_runs(half) for half in halves if half.any()] or ["-1"]
    return {"masks": [[image, f"{_SEPARATOR}{each}"] for each in told]}


def relative_runs(mask: Bool[ndarray, "height width"]) -> str:
    """Pairs (gap since the end of the run before, length) down the columns, from left to right."""
    edges = np.flatnonzero(np.diff(mask.T.ravel().astype(np.int8), prepend=0, append=0))
    starts, ends = edges[::2], edges[1::2]
    gaps = starts - np.concatenate([[0], ends[:-1]])
    pairs = zip(gaps.tolist(), (ends - starts).tolist(), strict=True)
    return " ".join(f"{gap} {length}" for gap, length in pairs)


def write_tables(config: PhantomConfig, rows: Rows) -> None:
    """The table of masks, with the blanks that its header and cells have."""
    content = csv_bytes("ImageId, EncodedPixels", rows["masks"])
    write_bytes_atomically(config.archive / "train-rle.csv", content)


def importer_settings(config: PhantomConfig) -> dict[str, Any]:
    """Where the importer of SIIM-ACR finds everything."""
    return {"root": config.archive, "side_px": config.image_size_px}

"""The phantom as COVID Rural: see `sources/covid_rural.py` for the layout.

Masks are of what opacifies a lung; a study without any has no mask.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from data_shards.phantom.images.findings import Category
from data_shards.phantom.layouts.drawn import Rows, draw_study, encoded, permuted, write_file
from data_shards.phantom.settings import PhantomConfig
from data_shards.phantom.study import Study

OPACITIES: tuple[Category, ...] = ("Consolidation", "Edema", "Lung Opacity", "Pneumonia")


def write_study(config: PhantomConfig, study: Study) -> Rows:
    """A study's frontal in colour, and the mask of its opacities in 0 and 1."""
    drawn = draw_study(config, study)
    patient = 10_000_000 + permuted(config.seed, study.patient, "covid")
    date = study.when.strftime("%m-%d-%Y")
    name = f"COVID-19-AR-{patient}_{date}-XR_CHEST_AP_PORTABLE_1_VIEW-{study.number:05d}"
    grey = drawn.rendered.frontal
    image = encoded(np.dstack([grey] * 3), "JPEG", quality=95)
    write_file(config.archive / "jpgs" / f"{name}.jpg", image)
    mask = drawn.mask_of(*OPACITIES)
    if mask.any():
        content = encoded(mask.astype(np.uint8), "PNG", compress_level=1)
        write_file(config.archive / "pngs_masks" / f"{name}.png", content)
    return {"images": [[name, int(mask.any())]]}


def write_tables(config: PhantomConfig, rows: Rows) -> None:
    """None: there are only images."""
    del config, rows


def importer_settings(config: PhantomConfig) -> dict[str, Any]:
    """Where the importer of COVID Rural finds everything."""
    return {"root": config.archive}

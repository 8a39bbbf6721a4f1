"""The phantom as MS-CXR: its table beside the images of MIMIC-CXR-JPG, in that set's layout."""

from __future__ import annotations

from typing import Any

from data_shards.phantom.layouts.mimic_cxr import MS_CXR_NAME, write_study, write_tables
from data_shards.phantom.settings import PhantomConfig

__all__ = ["importer_settings", "write_study", "write_tables"]


def importer_settings(config: PhantomConfig) -> dict[str, Any]:
    """Where the importer of MS-CXR finds everything."""
    return {"annotations": config.archive / MS_CXR_NAME, "image_root": config.archive}

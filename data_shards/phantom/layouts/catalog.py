"""The layouts that the phantom can be written in, by the name of the importer that reads them."""

from __future__ import annotations

from typing import Any, Protocol

from data_shards.phantom.layouts import (
    chexpert,
    covid_rural,
    mimic_cxr,
    ms_cxr,
    nih_boxes,
    object_cxr,
    openi,
    rsna,
    siim_acr,
)
from data_shards.phantom.layouts.drawn import Rows
from data_shards.phantom.settings import Layout, PhantomConfig
from data_shards.phantom.study import Study

LICENCE = "synthetic: no patient, no restriction"


class LayoutWriter(Protocol):
    """What a module of a layout has."""

    def write_study(self, config: PhantomConfig, study: Study) -> Rows:
        """Write the images of a study; what the tables say of it."""

    def write_tables(self, config: PhantomConfig, rows: Rows) -> None:
        """Write the tables of all studies, in an order that does not depend on the rows'."""

    def importer_settings(self, config: PhantomConfig) -> dict[str, Any]:
        """What a profile says in `source`, so that the importer finds the archive."""


_LAYOUTS: dict[Layout, LayoutWriter] = {
    "mimic_cxr": mimic_cxr,
    "ms_cxr": ms_cxr,
    "openi": openi,
    "chexpert": chexpert,
    "rsna": rsna,
    "siim_acr": siim_acr,
    "nih_boxes": nih_boxes,
    "object_cxr": object_cxr,
    "covid_rural": covid_rural,
}


def layout_of(name: Layout) -> LayoutWriter:
    """The writer of a layout."""
    return _LAYOUTS[name]

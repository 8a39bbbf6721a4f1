"""The layouts that the phantom is drawn in, by the name of their data set."""

from __future__ import annotations

from data_shards.phantom.layouts import mimic_cxr
from data_shards.phantom.layouts.base import Layout

LAYOUTS: dict[str, Layout] = {"mimic_cxr": mimic_cxr}

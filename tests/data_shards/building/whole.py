from __future__ import annotations

from data_shards.building.build import build_part
from data_shards.building.settings import ShardsConfig
from data_shards.records.manifest import Manifest


def build_shards(config: ShardsConfig) -> Manifest:
    """The manifest of a whole build."""
    manifest = build_part(config).manifest
    assert manifest is not None, "parts are built by build_part"
    return manifest

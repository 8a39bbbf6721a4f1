"""A small shard folder with all that shards hold, to be damaged."""

from __future__ import annotations

from pathlib import Path

from data_shards.building.build import build
from data_shards.building.settings import ShardsConfig
from data_shards.profiles import validate


def write_sound_shards(root: Path) -> Path:
    """Ten studies with one or two images, boxes and masks, in two train shards and two more."""
    values = {
        "phantom": {
            "archive": root / "archive",
            "train_studies": 6,
            "validate_studies": 2,
            "test_studies": 2,
            "image_size_px": 64,
        },
        "source": {"name": "mimic_cxr"},
        "output": root / "shards",
        "longest_side_px": 48,
        "samples_per_shard": 4,
        "workers": 1,
    }
    build(validate(ShardsConfig, values, where="fuzz"))
    return root / "shards"

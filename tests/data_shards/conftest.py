"""A tiny archive of images and reports, described by a table as any user's may be."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from data_shards.building.settings import ShardsConfig
from data_shards.profiles import validate

PATIENTS = 14
COLUMNS = ("image", "patient_id", "study_id", "view", "report")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A folder with `pairs.csv` and images: 14 patients, two studies each, some with a lateral."""
    root = tmp_path / "archive"
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for patient in range(PATIENTS):
        for study in range(2):
            for view in ("PA", "L")[: 1 + patient % 2]:
                name = f"images/p{patient}_s{study}_{view}.jpg"
                coarse = rng.integers(0, 255, (6, 5), dtype=np.uint8)
                smooth = Image.fromarray(coarse).resize((100, 120), Image.Resampling.BICUBIC)
                smooth.save(root / name, quality=90)
                report = f"Patient {patient} is well. No effusion in study {study}."
                cells = (name, f"p{patient}", f"s{study}", view, report)
                rows.append(cells)
    with (root / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return root


@pytest.fixture
def make_config(archive: Path, tmp_path: Path) -> Callable[..., ShardsConfig]:
    """Configs over `archive`, several shards a split; keywords change single fields."""

    def make(**changes: Any) -> ShardsConfig:
        return validate(ShardsConfig, profile_values(archive, tmp_path) | changes, where="test")

    return make


@pytest.fixture
def profile(archive: Path, tmp_path: Path) -> Path:
    """The same config as a YAML file, for the command line."""
    path = tmp_path / "profile.yaml"
    path.write_text(yaml.safe_dump(profile_values(archive, tmp_path)))
    return path


def profile_values(archive: Path, tmp_path: Path) -> dict[str, Any]:
    columns = {"report": "report", "study_id": "study_id", "view": "view"}
    return {
        "source": {
            "name": "csv_pairs",
            "table": str(archive / "pairs.csv"),
            "image_root": str(archive),
            "columns": columns,
        },
        "output": str(tmp_path / "shards"),
        "longest_side_px": 64,
        "samples_per_shard": 5,
        "validate_fraction": 0.2,
        "test_fraction": 0.2,
        "workers": 1,
    }

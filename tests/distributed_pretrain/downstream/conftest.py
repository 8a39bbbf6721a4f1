"""A phantom with labels, masks and boxes, and a small encoder's run, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_shards.building.settings import ShardsConfig
from data_shards.profiles import load_profile, validate
from distributed_pretrain.pretrain.build import pretrain
from distributed_pretrain.pretrain.settings import PretrainConfig
from tests.data_shards.building.whole import build_shards


@pytest.fixture(scope="session")
def drawn_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many studies as have every finding in each split."""
    folder = tmp_path_factory.mktemp("drawn")
    counts = {"train_studies": 32, "validate_studies": 24, "test_studies": 24}
    values = {
        "phantom": {"archive": folder / "archive", "image_size_px": 64, "seed": 3, **counts},
        "source": {"name": "mimic_cxr"},
        "output": folder / "shards",
        "longest_side_px": 64,
        "samples_per_shard": 16,
        "workers": 1,
    }
    build_shards(validate(ShardsConfig, values, where="test"))
    return folder / "shards"


@pytest.fixture(scope="session")
def tiny_run(tiny_profile: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one step."""
    folder = tmp_path_factory.mktemp("encoder") / "run"
    asked = [f"run_folder={folder}", "training.max_steps=1", "training.pictures=false"]
    assert pretrain(load_profile(PretrainConfig, tiny_profile, asked))
    return folder

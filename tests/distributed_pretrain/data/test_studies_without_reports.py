"""Sets of labels alone: the policy that reads no text keeps their studies, and no other does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_shards.building.build import build_part
from data_shards.building.settings import ShardsConfig
from data_shards.checking.verify import verify_shards
from data_shards.errors import InputError
from data_shards.profiles import validate
from distributed_pretrain.data.shards import ShardSplit, label_values


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four images with a label each, as any user's table may have."""
    lines = ["image,patient_id,Effusion"]
    for number in range(4):
        coarse = np.random.default_rng(number).integers(0, 255, (6, 6), dtype=np.uint8)
        Image.fromarray(coarse).resize((40, 40)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,p{number},{number % 2}")
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    values = {
        "source": {
            "name": "csv_pairs",
            "table": tmp_path / "t.csv",
            "image_root": tmp_path,
            "columns": {"labels": ["Effusion"]},
            "default_view": "PA",
        },
        "output": tmp_path / "shards",
        "validate_fraction": 0,
        "test_fraction": 0,
        "workers": 1,
    }
    build_part(validate(ShardsConfig, values, where="test"))
    return tmp_path / "shards"


def test_labels_are_read_without_a_report(folder: Path) -> None:
    assert verify_shards(folder, workers=1).problems == ()
    split = ShardSplit(folder, "train", "no_text")
    assert len(split) == 4
    assert split.told_left_out() == ""
    values = {label_values(split.read(position), ["Effusion"])[0] for position in range(4)}
    assert values == {0.0, 1.0}


def test_a_policy_that_reads_text_keeps_none_of_them_and_says_so(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no usable sample \(4 stored; .*choose another split"):
        ShardSplit(folder, "train", "lovt")

"""What is kept of a frozen encoder gives the runs that the images give."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_shards.profiles import load_profile
from distributed_pretrain.data.share import Share
from distributed_pretrain.downstream.features import FeatureStore
from distributed_pretrain.downstream.head import Head
from distributed_pretrain.downstream.run import judge_head, train_head
from distributed_pretrain.downstream.settings import DownstreamConfig
from distributed_pretrain.pretrain.build import open_split
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.metrics import is_timing
from tests.full_disk import full_disk
from tests.paths import CONFIGS
from tests.tiny.sizes import IMAGE_SIZE_PX

FROZEN = ["linear", "linear_segmentation", "unet", "yolov3"]


def configured(name: str, shards: Path, run: Path, folder: Path, *more: str) -> DownstreamConfig:
    asked = [
        f"encoder={run}",
        f"run_folder={folder}",
        f"data.shards={shards}",
        f"data.image_size_px={IMAGE_SIZE_PX}",
        "data.global_batch=16",
        "training.max_steps=3",
        "training.validate_every_steps=3",
        *(["protocol.encoder=frozen"] if name == "yolov3" else []),
        *more,
    ]
    return load_profile(DownstreamConfig, CONFIGS / "downstream" / f"phantom_{name}.yaml", asked)


def measured(config: DownstreamConfig) -> list[dict[str, Any]]:
    store = FeatureStore(config.features, config.run_folder)
    assert train_head(config, store)
    lines = RunFolder(config.run_folder).read_metrics()
    decided = [{k: v for k, v in each.items() if not is_timing(k)} for each in lines]
    return [*decided, judge_head(config, store)]


@pytest.mark.parametrize("name", FROZEN)
def test_a_run_is_the_same_on_images_and_on_kept_features(
    name: str,
    drawn_shards: Path,
    tiny_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = (drawn_shards, tiny_run)
    kept = configured(name, *place, tmp_path / "kept", "features.memory_gib=0")
    ours = measured(kept)
    said = capsys.readouterr().err
    assert f"float32, in a file in {kept.run_folder}" in said
    names = [path.name for path in kept.run_folder.iterdir() if path.is_file()]
    assert {Path(name).suffix for name in names} <= {".json", ".jsonl", ".yaml", ".png", ".html"}
    expected = measured(configured(name, *place, tmp_path / "images", "features.keep=false"))
    assert "features of" not in capsys.readouterr().err
    for found, wanted in zip(ours, expected, strict=True):
        assert found.pop("split", "") == wanted.pop("split", "")
        assert found == pytest.approx(wanted, rel=1e-3, abs=1e-4)


def test_too_many_bytes_are_not_kept_and_half_as_many_may_be(
    drawn_shards: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = (drawn_shards, tiny_run)
    nothing = ("features.memory_gib=0", "features.disk_gib=0")
    measured(configured("linear", *place, tmp_path / "none", *nothing))
    assert "not kept, more than features.disk_gib=0" in capsys.readouterr().err
    config = configured("linear", *place, tmp_path / "half", "features.dtype=float16")
    store = FeatureStore(config.features, tmp_path / "files")
    assert train_head(config, store)
    assert store.kept_bytes == 2 * (32 + 24) * 64
    assert json.dumps(judge_head(config, store))


def test_on_a_full_disk_nothing_is_kept(
    drawn_shards: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = configured("linear", drawn_shards, tiny_run, tmp_path, "features.memory_gib=0")
    judged = open_split(config.data, "validate")
    store = FeatureStore(config.features, tmp_path / "files")
    with full_disk(left_bytes=1000):
        Head.of(config, Share(), store).validation(judged)
    assert f"not kept, {tmp_path / 'files'} cannot hold them (" in capsys.readouterr().err
    assert store.kept_bytes == 0
    assert not list((tmp_path / "files").iterdir())

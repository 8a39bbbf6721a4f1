"""Shards of studies with one and two images, read by webdataset, `datasets` and the project."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import webdataset
from PIL import Image

from data_shards.building.settings import ShardsConfig
from data_shards.records.manifest import read_manifest
from distributed_pretrain.data.shards import ShardSplit
from tests.data_shards.building.whole import build_shards

datasets.disable_progress_bars()


@pytest.fixture
def shards(make_config: Callable[..., ShardsConfig], tmp_path: Path) -> Path:
    """In a folder of any name, as folders have them."""
    config = make_config(output=str(tmp_path / "set 1 {a} +é"))
    build_shards(config)
    return config.output


def ours(shards: Path) -> dict[str, dict[str, bytes]]:
    """By key: the members of the training studies."""
    split = ShardSplit(shards, "train", "lovt")
    studies = {}
    for position in range(len(split)):
        record = split.read(position)
        names = ["json", *(image.member for image in record.images)]
        studies[record.key] = {name: split.read_member(position, name) for name in names}
    assert {len(members) for members in studies.values()} == {2, 3}
    return studies


def test_webdataset_reads_what_we_read(shards: Path) -> None:
    tars = [str(path) for path in sorted(shards.glob("train-*.tar"))]
    read = {
        sample["__key__"]: {name: each for name, each in sample.items() if name[0] != "_"}
        for sample in webdataset.WebDataset(tars, shardshuffle=False)
    }
    assert read == ours(shards)
    pairs = list(
        webdataset.WebDataset(tars, shardshuffle=False).decode("pil").to_tuple("image0.jpg", "json")
    )
    assert len(pairs) == len(read)
    assert all(record["images"][0]["width"] == image.width for image, record in pairs)


@pytest.mark.parametrize("streaming", [True, False])
def test_datasets_reads_every_split_by_the_card(
    shards: Path, tmp_path: Path, streaming: bool
) -> None:
    loaded: Any = datasets.load_dataset(
        str(shards), streaming=streaming, cache_dir=str(tmp_path / "cache")
    )
    counts = {name: sum(1 for _ in split) for name, split in loaded.items()}
    assert counts == read_manifest(shards).samples_by_split
    read = {study["__key__"]: study for study in loaded["train"]}
    expected = ours(shards)
    assert read.keys() == expected.keys()
    for key, members in expected.items():
        assert read[key]["json"] == json.loads(members["json"])
        for name in ("image0.jpg", "image1.jpg"):
            if name not in members:
                assert read[key][name] is None
                continue
            with Image.open(io.BytesIO(members[name])) as image:
                assert np.array_equal(np.asarray(read[key][name]), np.asarray(image))


def test_without_the_card_datasets_refuses_rather_than_loses_images(
    shards: Path, tmp_path: Path
) -> None:
    """By the card's features it reads shards of an earlier release too."""
    tars = {"train": str(shards / "train-*.tar")}
    options: dict[str, Any] = {"data_files": tars, "cache_dir": str(tmp_path), "split": "train"}
    with pytest.raises(ValueError, match="don't share the same"):
        datasets.load_dataset("webdataset", **options)
    # Never in the home folder's cache, which other suites share.
    builder = datasets.load_dataset_builder(str(shards), cache_dir=str(tmp_path))
    features = builder.info.features
    by_name: Any = datasets.load_dataset("webdataset", features=features, **options)
    assert len(by_name) == read_manifest(shards).samples_by_split["train"]
    assert {study["image1.jpg"] is None for study in by_name} == {True, False}


def test_a_page_of_somebody_else_s_is_left_alone(
    make_config: Callable[..., ShardsConfig],
) -> None:
    config = make_config()
    config.output.mkdir()
    (config.output / "README.md").write_text("my own notes")
    build_shards(config)
    assert (config.output / "README.md").read_text() == "my own notes"
    (config.output / "README.md").unlink()
    build_shards(config)
    assert "Written by" in (config.output / "README.md").read_text()

"""Training from a store gives what training from the folder gives, or ends in a line."""

from pathlib import Path

import pytest

from data_shards.remote.fetch import StoreError
from data_shards.remote.settings import CacheConfig
from distributed_pretrain.data.settings import DataConfig
from distributed_pretrain.data.shards import ShardSplit
from tests.data_shards.remote.web_store import TAR, WebStore, running

pytest.importorskip("aiohttp")


def members(split: ShardSplit) -> list[bytes]:
    return [split.read_member(each, name) for each in range(len(split)) for name in ("json",)]


def data_of(store: WebStore, tmp_path: Path, patience_seconds: float = 8) -> DataConfig:
    cache = CacheConfig(
        folder=tmp_path / "cache", timeout_seconds=0.3, patience_seconds=patience_seconds
    )
    return DataConfig(shards=store.address, cache=cache, global_batch=4)


def test_a_store_with_faults_gives_the_bytes_of_the_folder(tmp_path: Path) -> None:
    with running(tmp_path / "store") as store:
        store.faults = ["500", "cut", "die"]
        split = ShardSplit(data_of(store, tmp_path).files(), "train", "lovt")
        assert members(split) == members(ShardSplit(store.folder, "train", "lovt"))


def test_a_damaged_copy_is_mended_while_it_is_read(tmp_path: Path) -> None:
    with running(tmp_path / "store") as store:
        split = ShardSplit(data_of(store, tmp_path).files(), "train", "lovt")
        wanted = members(split)
        copy = split.files.path(TAR)
        copy.write_bytes(bytes(copy.stat().st_size))
        assert members(split) == wanted


def test_damage_that_was_written_so_is_a_bad_sample_as_in_a_folder(tmp_path: Path) -> None:
    with running(tmp_path / "store") as store:
        split = ShardSplit(data_of(store, tmp_path).files(), "train", "lovt")
        with pytest.raises(ValueError, match="not in the index"):
            split.read_member(0, "image9.jpg")


def test_a_store_that_dies_ends_reading_with_its_address(tmp_path: Path) -> None:
    with running(tmp_path / "store") as store:
        split = ShardSplit(data_of(store, tmp_path, 0.2).files(), "train", "lovt")
    with pytest.raises(StoreError) as raised:
        members(split)
    assert f"{store.address}/{TAR}" in str(raised.value)

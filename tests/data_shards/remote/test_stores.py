"""Shards of a web server that stalls, cuts, fails and dies: never other bytes than written."""

import os
import pickle
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.records.manifest import read_manifest
from data_shards.remote.fetch import DamagedInStoreError, StoreError
from data_shards.remote.settings import CacheConfig
from data_shards.remote.shards import ShardFiles, shard_files
from tests.data_shards.remote.web_store import TAR, WebStore, running

pytest.importorskip("aiohttp")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[WebStore]:
    with running(tmp_path / "store") as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> CacheConfig:
    return CacheConfig(folder=tmp_path / "cache", timeout_seconds=0.3, patience_seconds=8)


def is_as_stored(store: WebStore, path: Path) -> bool:
    return path.read_bytes() == (store.folder / path.name).read_bytes()


def left_over(cache: CacheConfig) -> list[Path]:
    return [path for path in cache.place.rglob("*") if path.is_file() and "fetching" in path.parts]


@pytest.mark.parametrize("fault", ["stall", "500", "503", "cut", "die", "other", "endless"])
def test_what_goes_wrong_once_is_told_and_asked_again(
    store: WebStore, cache: CacheConfig, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store.faults = [fault]
    path = shard_files(store.address, cache).path(TAR)
    assert is_as_stored(store, path)
    assert store.asked[TAR] == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert f"{store.address}/{TAR}" in told
    assert left_over(cache) == []


@pytest.mark.parametrize("fault", ["500", "cut", "stall"])
def test_a_store_that_stays_so_ends_in_one_line_and_leaves_no_file(
    store: WebStore, cache: CacheConfig, fault: str
) -> None:
    store.faults = [fault] * 99
    files = shard_files(store.address, cache.model_copy(update={"patience_seconds": 0.3}))
    with pytest.raises(StoreError) as raised:
        files.path(TAR)
    assert f"{store.address}/{TAR}" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (files.folder / TAR).exists()
    assert left_over(cache) == []


@pytest.mark.parametrize(("fault", "said"), [("404", "not there"), ("403", "refuses")])
def test_what_no_waiting_mends_ends_at_once(
    store: WebStore, cache: CacheConfig, fault: str, said: str
) -> None:
    store.faults = [fault]
    with pytest.raises(InputError, match=said):
        shard_files(store.address, cache).path(TAR)
    assert store.asked[TAR] == 1


def test_a_file_is_fetched_once_for_all_threads(store: WebStore, cache: CacheConfig) -> None:
    files = shard_files(store.address, cache)
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(files.path, [TAR] * 16))
    assert store.asked[TAR] == 1
    assert len(paths) == 1


def test_the_cache_keeps_its_size_and_what_is_in_use(store: WebStore, cache: CacheConfig) -> None:
    sizes = [each.stat().st_size for each in sorted(store.folder.glob("*.tar"))]
    manifest = (store.folder / "manifest.json").stat().st_size
    room = (max(sizes) * 2 + manifest) / 2**30
    files = shard_files(store.address, cache.model_copy(update={"size_gib": room}))
    for name in (TAR, "train-000001.tar"):
        os.utime(files.path(name), (0, 1 if name == TAR else 0))
    files.path(TAR)
    files.path("train-000002.tar")
    held = {path.name for path in files.folder.glob("*.tar")}
    assert held == {TAR, "train-000002.tar"}


def test_a_file_larger_than_the_cache_is_refused(store: WebStore, cache: CacheConfig) -> None:
    files = shard_files(store.address, cache.model_copy(update={"size_gib": 1e-7}))
    with pytest.raises(InputError, match=r"data\.cache\.size_gib"):
        files.path(TAR)


def test_a_cut_damaged_or_wiped_copy_is_fetched_again(store: WebStore, cache: CacheConfig) -> None:
    files = shard_files(store.address, cache)
    path = files.path(TAR)
    os.truncate(path, 100)
    assert is_as_stored(store, files.path(TAR))
    path.write_bytes(bytes(path.stat().st_size))
    assert files.mended(TAR)
    assert is_as_stored(store, path)
    assert not files.mended(TAR)
    shutil.rmtree(cache.place)
    assert is_as_stored(store, files.path(TAR))


def test_what_a_killed_process_left_is_removed(store: WebStore, cache: CacheConfig) -> None:
    left = cache.place / "fetching" / ("0" * 64) / "x.partial"
    left.parent.mkdir(parents=True)
    left.touch()
    shard_files(store.address, cache).path(TAR)
    assert not left.parent.exists()


def test_a_shard_replaced_in_the_store_is_never_taken(store: WebStore, cache: CacheConfig) -> None:
    files = shard_files(store.address, cache)
    size = (store.folder / TAR).stat().st_size
    (store.folder / TAR).write_bytes(bytes(size))
    with pytest.raises(DamagedInStoreError, match=r"other bytes arrived .* replaced or damaged"):
        files.path(TAR)
    assert store.asked[TAR] == 2


def test_another_process_has_the_manifest_of_the_first(store: WebStore, cache: CacheConfig) -> None:
    files = shard_files(store.address, cache)
    known = read_manifest(store.folder)
    (store.folder / "manifest.json").unlink()
    shutil.rmtree(cache.place)
    again: ShardFiles = pickle.loads(pickle.dumps(files))
    assert read_manifest(again.manifest_folder()) == known


def test_a_cache_that_cannot_be_made_is_named(store: WebStore, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"data\.cache\.folder"):
        shard_files(store.address, CacheConfig(folder=tmp_path / "file" / "cache"))


def test_a_page_that_is_no_manifest_is_refused_at_once(store: WebStore, cache: CacheConfig) -> None:
    (store.folder / "manifest.json").write_text("<html>log in</html>")
    with pytest.raises(InputError, match="no manifest"):
        shard_files(store.address, cache)

"""A small cache that several processes share: each file comes once, whole, within the bound."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.records.manifest import read_manifest
from data_shards.remote.address import Address
from data_shards.remote.settings import CacheConfig
from data_shards.remote.shards import shard_files
from tests.data_shards.remote.web_store import TAR, WebStore, running
from tests.forks import Started, fork
from tests.full_disk import full_disk

pytest.importorskip("aiohttp")

PROCESSES = 4
SHARDS = 3


@pytest.fixture
def store(tmp_path: Path) -> Iterator[WebStore]:
    with running(tmp_path / "store") as server:
        yield server


def cache_of(store: WebStore, tmp_path: Path, *, tars: float) -> CacheConfig:
    """With room for so many tars, and for the indices of all."""
    largest = max(path.stat().st_size for path in store.folder.glob("*.tar"))
    indices = sum(path.stat().st_size for path in store.folder.glob("*.index.json"))
    return CacheConfig(
        folder=tmp_path / "cache",
        size_gib=(tars * largest + indices) / 2**30,
        timeout_seconds=10,
        patience_seconds=60,
    )


def sizes(cache: CacheConfig, ending: str = "") -> dict[str, int]:
    """The bytes of the files with that ending, by name; others may remove them meanwhile."""
    found = {}
    for folder, _, names in os.walk(cache.place):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found[f"{folder}/{name}"] = Path(folder, name).stat().st_size
    return {name: size for name, size in found.items() if name.endswith(ending)}


def held_bytes(cache: CacheConfig) -> int:
    """Of all but manifests."""
    return sum(size for name, size in sizes(cache).items() if not name.endswith("manifest.json"))


def read_all(address: str, cache: CacheConfig, first: int, rounds: int) -> None:
    """Every shard in turn, from `first` on: raises where one is not as it was written."""
    files = shard_files(Address(address), cache)
    entries = read_manifest(files.manifest_folder()).shards
    for number in range(first, first + rounds * len(entries)):
        entry = entries[number % len(entries)]
        files.read_index(entry)
        with files.open(entry.tar_name) as tar:
            assert hashlib.file_digest(tar, "sha256").hexdigest() == entry.sha256


def started(store: WebStore, cache: CacheConfig, tmp_path: Path, *, rounds: int) -> list[Started]:
    return [
        fork(read_all, str(store.address), cache, first, rounds, files=tmp_path / f"{first}")
        for first in range(PROCESSES)
    ]


def wait_until(is_so: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("tars", [SHARDS, 2])
def test_processes_share_a_cache(store: WebStore, tmp_path: Path, tars: int) -> None:
    store.seconds_a_tar = 0.1
    cache = cache_of(store, tmp_path, tars=tars)
    for each in started(store, cache, tmp_path, rounds=2):
        assert each.wait() == 0, each.said
    assert held_bytes(cache) <= cache.size_bytes
    assert store.most_at_once <= tars
    if tars == SHARDS:
        assert {store.asked[path.name] for path in store.folder.glob("train*")} == {1}


def test_what_a_killed_process_had_begun_is_taken_by_nobody(
    store: WebStore, tmp_path: Path
) -> None:
    store.faults = ["half"]
    cache = cache_of(store, tmp_path, tars=1)
    killed = fork(read_all, str(store.address), cache, 0, 1, files=tmp_path / "killed")
    wait_until(lambda: any(sizes(cache, ".tar.partial").values()))
    waiting = fork(read_all, str(store.address), cache, 0, 1, files=tmp_path / "waiting")
    wait_until(lambda: store.asked["manifest.json"] == 2)
    killed.kill()
    assert waiting.wait() == 0, waiting.said
    assert store.asked[TAR] == 2
    assert not sizes(cache, ".partial")
    assert held_bytes(cache) <= cache.size_bytes


def test_a_cache_that_is_wiped_while_it_is_used_comes_back(store: WebStore, tmp_path: Path) -> None:
    cache = cache_of(store, tmp_path, tars=SHARDS)
    readers = started(store, cache, tmp_path, rounds=10)
    for _ in range(4):
        wait_until(lambda: any(sizes(cache, ".tar")))
        shutil.rmtree(cache.place, ignore_errors=True)
    for each in readers:
        assert each.wait() == 0, each.said
    assert store.asked[TAR] > 1
    assert not sizes(cache, ".partial")


def test_a_full_disk_is_said_and_nothing_half_is_left(store: WebStore, tmp_path: Path) -> None:
    cache = cache_of(store, tmp_path, tars=1)
    files = shard_files(store.address, cache)
    with full_disk(left_bytes=1000), pytest.raises(InputError) as raised:
        files.path(TAR)
    assert str(raised.value).startswith(f"{cache.place}: no space left to write shards of a store")
    assert "data.cache.folder" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert held_bytes(cache) == 0
    assert files.path(TAR).read_bytes() == (store.folder / TAR).read_bytes()

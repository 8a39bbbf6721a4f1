"""Shards of object stores that speak S3's and Google's protocols, with their own clients."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from gcp_storage_emulator.server import create_server
from gcsfs.core import GCSFileSystem
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from data_shards.__main__ import main
from data_shards.errors import InputError
from data_shards.remote.address import Address
from data_shards.remote.settings import CacheConfig
from data_shards.remote.shards import shard_files
from data_shards.synthetic_shards import write_synthetic_shards

SECRET = "not-to-be-told"


@dataclass(frozen=True)
class ObjectStore:
    """A store of this machine with a bucket `chest`."""

    protocol: str
    client: Any
    stop: Callable[[], None]


def _s3(monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    client = S3FileSystem(skip_instance_cache=True)
    client.makedirs("chest", exist_ok=True)
    return ObjectStore("s3", client, server.stop)


def _gs(monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket="chest")
    server.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    return ObjectStore("gs", GCSFileSystem(token="anon", skip_instance_cache=True), server.stop)


@pytest.fixture(params=[_s3, _gs], ids=["s3", "gs"])
def store(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[ObjectStore]:
    """With the shards of `tmp_path / "shards"` in its `chest/a`."""
    store = request.param(monkeypatch)
    folder = tmp_path / "shards"
    write_synthetic_shards(
        folder, studies={"train": 8}, studies_a_shard=4, longest_side_px=32, views=("PA",)
    )
    for path in folder.iterdir():
        store.client.put_file(str(path), f"chest/a/{path.name}")
    yield store
    stop(store)


def stop(store: ObjectStore) -> None:
    """In a thread of its own: servers wait for the one that they were started in."""
    stopper = threading.Thread(target=store.stop)
    stopper.start()
    stopper.join()


def test_shards_come_from_an_object_store(
    store: ObjectStore, tmp_path: Path, profile: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    address = f"{store.protocol}://chest/a"
    cache = CacheConfig(folder=tmp_path / "cache", timeout_seconds=5, patience_seconds=0)
    files = shard_files(Address(f"{address}/"), cache)
    tar = "train-000000.tar"
    assert files.path(tar).read_bytes() == (tmp_path / "shards" / tar).read_bytes()
    cached = [f"data.cache.folder={tmp_path / 'other'}", "data.cache.patience_seconds=0"]
    assert main(["verify", str(profile), f"data.shards={address}", *cached]) == 0
    assert "everything is as the manifest says" in capfd.readouterr().out
    store.client.rm_file("chest/a/train-000001.tar")
    with pytest.raises(InputError, match=rf"{address}/train-000001\.tar: not there"):
        files.path("train-000001.tar")


def test_a_store_that_is_gone_is_named_without_what_opens_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop(_s3(monkeypatch))
    cache = CacheConfig(folder=tmp_path / "cache", timeout_seconds=5, patience_seconds=0)
    with pytest.raises(RuntimeError, match=r"s3://chest/b/manifest\.json") as raised:
        shard_files(Address("s3://chest/b"), cache)
    assert SECRET not in str(raised.value) + "".join(capfd.readouterr())

"""Shards of an object store that speaks S3's protocol, with its own client."""

import threading
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from data_shards.__main__ import main
from data_shards.errors import InputError
from data_shards.remote.address import Address
from data_shards.remote.settings import CacheConfig
from data_shards.remote.shards import shard_files
from data_shards.synthetic_shards import write_synthetic_shards

SECRET = "not-to-be-told"


def test_shards_come_from_an_object_store(
    tmp_path: Path,
    profile: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    folder = tmp_path / "shards"
    write_synthetic_shards(
        folder, studies={"train": 8}, studies_a_shard=4, longest_side_px=32, views=("PA",)
    )
    store = S3FileSystem()
    store.mkdir("chest")
    for path in folder.iterdir():
        store.put_file(str(path), f"chest/a/{path.name}")
    cache = CacheConfig(folder=tmp_path / "cache", timeout_seconds=5, patience_seconds=0)
    files = shard_files(Address("s3://chest/a/"), cache)
    tar = "train-000000.tar"
    assert files.path(tar).read_bytes() == (folder / tar).read_bytes()
    cached = [f"data.cache.folder={tmp_path / 'other'}", "data.cache.patience_seconds=0"]
    assert main(["verify", str(profile), "data.shards=s3://chest/a", *cached]) == 0
    assert "everything is as the manifest says" in capfd.readouterr().out
    store.rm_file("chest/a/train-000001.tar")
    with pytest.raises(InputError, match=r"s3://chest/a/train-000001\.tar: not there"):
        files.path("train-000001.tar")
    stopper = threading.Thread(target=server.stop)
    stopper.start()
    stopper.join()
    with pytest.raises(RuntimeError, match=r"s3://chest/b/manifest\.json") as raised:
        shard_files(Address("s3://chest/b"), cache)
    assert SECRET not in str(raised.value) + "".join(capfd.readouterr())

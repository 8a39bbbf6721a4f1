"""Verbs that read shards say of a store's what they say of the folder's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_shards.__main__ import main
from tests.data_shards.remote.web_store import TAR, WebStore, running

pytest.importorskip("aiohttp")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebStore]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with running(tmp_path / "store") as server:
        yield server


def printed(capsys: pytest.CaptureFixture[str], *words: object, status: int = 0) -> str:
    assert main([str(word) for word in words]) == status
    return capsys.readouterr().out


def test_every_verb_says_the_same_of_both(
    store: WebStore, profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sheets = [tmp_path / f"{number}.png" for number in range(2)]
    for shards, sheet in zip((store.folder, store.address), sheets, strict=True):
        place = f"data.shards={shards}"
        told = printed(capsys, "verify", profile, place, "data.cache.timeout_seconds=5")
        assert told.startswith(f"3 shards, 12 samples, 12 images in {shards}\n")
        assert "everything is as the manifest says" in told
        assert printed(capsys, "text-report", shards).startswith(f"12 studies in {shards}, ")
        printed(capsys, "preview", profile, place, "--sheet", sheet, "--samples", "5")
    assert sheets[0].read_bytes() == sheets[1].read_bytes()
    saved = tmp_path / "overlap.json"
    printed(capsys, "overlap", store.folder, store.address, "--save", saved)
    assert len(json.loads(saved.read_text())["images"]) == 12
    assert store.asked[TAR] == 1


def test_verify_lists_what_the_store_has_wrong_and_mends_what_is_wrong_here(
    store: WebStore, profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = f"data.shards={store.address}"
    printed(capsys, "verify", profile, place)
    for copy in (tmp_path / "cache").rglob("*.tar"):
        copy.write_bytes(bytes(copy.stat().st_size))
    (store.folder / "train-000001.tar").unlink()
    (store.folder / TAR).write_bytes(bytes((store.folder / TAR).stat().st_size))
    told = printed(capsys, "verify", profile, place, status=2).splitlines()
    problems = [line for line in told if line.startswith("problem: ")]
    assert len(problems) == 2
    assert f"{TAR}: {store.address}/{TAR}: other bytes arrived" in problems[0]
    assert f"{store.address}/train-000001.tar: not there" in problems[1]


def test_a_cache_too_small_ends_in_the_option_that_helps(
    store: WebStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["text-report", store.address, "data.cache.size_gib=1e-7"]) == 2
    assert "raise data.cache.size_gib" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["preview", "PROFILE", "data.shards=ADDRESS"], "--sheet FILE.png"),
        (["beton", "ADDRESS"], "copy the shards to a folder first"),
        (["text-report", "ADDRESS", "cache.size_gib=1"], "known keys: data"),
    ],
)
def test_what_a_store_cannot_have_is_said(
    words: list[str], said: str, store: WebStore, profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {"PROFILE": str(profile), "ADDRESS": store.address}
    for name, value in values.items():
        words = [word.replace(name, value) for word in words]
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_an_address_with_a_secret_is_refused_without_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["text-report", "https://me:hunter2@host/x"])
    assert "hunter2" not in capsys.readouterr().err

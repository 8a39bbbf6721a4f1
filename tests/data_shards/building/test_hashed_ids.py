"""Keyed hashes in place of ids: none is left in what is written, and joins keep working."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from data_shards.building.hashed_ids import hashed, naming, without_examples
from data_shards.building.settings import ShardsConfig
from data_shards.checking.verify import verify_shards
from data_shards.errors import InputError
from data_shards.records.manifest import read_manifest
from tests.data_shards.building.whole import build_shards

MakeConfig = Callable[..., ShardsConfig]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text("0123456789abcdef0123456789abcdef\n")
    return path


def test_nothing_that_is_written_names_a_patient_study_or_image(
    make_config: MakeConfig, archive: Path, key: Path
) -> None:
    table = archive / "pairs.csv"
    # Neither in what was left out nor in what was said of the table.
    text = table.read_text().replace("p8,s0", "P8,s0").replace("Patient 3 is", "All is<br>")
    table.write_text(text.replace("Patient ", "Person "))
    (archive / "images" / "p5_s1_L.jpg").unlink()
    (archive / "images" / "p6_s0_PA.jpg").unlink()
    config = make_config(hash_ids=key, bad_images="drop")
    manifest = build_shards(config)
    assert manifest.hashed_ids
    assert verify_shards(config.output, workers=1).problems == ()
    assert manifest.dropped_by_reason["missing image"] == 2
    written = b"".join(path.read_bytes() for path in config.output.iterdir() if path.is_file())
    assert b"Person" in written
    assert len(manifest.warnings) >= 2
    for patient in range(14):
        for name in (f"p{patient}_s", f'"p{patient}"', f"images/p{patient}", f"'p{patient}'"):
            assert name.encode() not in written
    assert json.loads((config.output / "manifest.json").read_text())["hashed_ids"] is True


def test_with_one_key_a_patient_has_one_name_and_one_split_as_without(
    make_config: MakeConfig, key: Path
) -> None:
    plain = make_config()
    build_shards(plain)
    before = names_by_split(plain.output)
    shutil.rmtree(plain.output)
    build_shards(make_config(hash_ids=key))
    named = naming(key)
    after = {split: {named(each) for each in names} for split, names in before.items()}
    assert names_by_split(plain.output) == after


def names_by_split(folder: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for path in folder.glob("*.index.json"):
        index = json.loads(path.read_text())
        names = set(index["samples"]["patient_ids"])
        found.setdefault(index["split"], set()).update(names)
    return found


def test_plain_ids_leave_the_manifest_as_earlier_releases_read_it(make_config: MakeConfig) -> None:
    config = make_config()
    build_shards(config)
    assert "hashed_ids" not in json.loads((config.output / "manifest.json").read_text())
    assert not read_manifest(config.output).hashed_ids


def test_another_key_is_another_build(make_config: MakeConfig, key: Path) -> None:
    build_shards(make_config(hash_ids=key))
    other = key.parent / "other" / "key"
    other.parent.mkdir()
    other.write_text("f" * 64)
    with pytest.raises(InputError, match="holds shards of another source, seed or setting"):
        build_shards(make_config(hash_ids=other))


@pytest.mark.parametrize("content", [None, "short"])
def test_a_file_that_is_no_key_is_refused_with_how_to_make_one(
    content: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "no-key"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=r"no-key: .*openssl rand -hex 32 >"):
        naming(path)


def test_a_hash_is_hmac_sha_256_of_rfc_4231() -> None:
    expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    assert hashed(b"\x0b" * 20, "Hi There") == expected[:32]


def test_lines_with_counts_keep_their_counts() -> None:
    line = "3 x a patient in case alone (first: 'P1' in line 7, 'p1' in line 2): write one id"
    assert without_examples(line) == "3 x a patient in case alone: write one id"

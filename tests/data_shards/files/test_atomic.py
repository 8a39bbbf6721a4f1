"""Files that are written whole, or not at all; and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.files.atomic import remove, try_to_write, write_text_atomically
from tests.full_disk import full_disk


def test_a_planted_link_is_not_written_through(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for name in ("a.json.partial", "b.json.partial"):
        (tmp_path / name).symlink_to(precious)
    write_text_atomically(tmp_path / "a.json", "new")
    try_to_write(tmp_path / "b.json")
    assert precious.read_text() == "mine"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.json", "precious"]
    assert (tmp_path / "a.json").read_text() == "new"


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old")
    with full_disk(), pytest.raises(OSError, match="too large") as caught:
        write_text_atomically(path, "new")
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_where_a_file_cannot_be_put_is_said_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="a folder stands where a file is to be written"):
        try_to_write(tmp_path / "folder")
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        try_to_write(tmp_path / "file" / "a.json")


def test_of_a_link_only_the_link_is_removed(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    (tmp_path / "link").symlink_to(kept)
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    for name in ("link", "folder", "nothing"):
        remove(tmp_path / name)
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]
    assert (kept / "file").exists()

"""Files that are written whole, or not at all; and nothing else is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.files.atomic import (
    made_whole,
    move,
    remove,
    tidy_up,
    try_to_write,
    write_text_atomically,
)
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


def fill(folder: Path, text: str) -> None:
    (folder / "inside").mkdir(parents=True)
    (folder / "inside" / "file").write_text(text)


def test_a_folder_appears_whole_and_takes_an_older_ones_place(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with made_whole(tmp_path / "made", folder=True) as unfinished:
            fill(unfinished, text)
            assert (tmp_path / "made").exists() == (text == "new")
        assert (tmp_path / "made" / "inside" / "file").read_text() == text
    assert [each.name for each in tmp_path.iterdir()] == ["made"]


@pytest.mark.parametrize("what", ["a folder", "a file", "a link"])
def test_what_fails_while_it_is_made_leaves_the_old_and_no_remains(
    what: str, tmp_path: Path
) -> None:
    def fail(at: Path) -> None:
        if what == "a folder":
            fill(at, "new")
        elif what == "a file":
            at.write_text("new")
        else:
            at.symlink_to("new")
        raise ZeroDivisionError

    with made_whole(tmp_path / "made") as unfinished:
        unfinished.write_text("old")
    is_folder = what == "a folder"
    with (
        pytest.raises(ZeroDivisionError),
        made_whole(tmp_path / "made", folder=is_folder) as unfinished,
    ):
        fail(unfinished)
    assert (tmp_path / "made").read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["made"]


def test_all_of_a_folder_is_on_the_disk_before_it_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []

    def note(descriptor: int) -> None:
        assert not (tmp_path / "made").exists()
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    monkeypatch.setattr(os, "fsync", note)
    with made_whole(tmp_path / "made", folder=True) as unfinished:
        fill(unfinished, "new")
    assert synced == ["file", "inside", "made.partial"]


def test_what_kills_left_of_folders_is_tidied_up(tmp_path: Path) -> None:
    """One was being made; of another the new name was not given yet; of a third it was."""
    for name in ("step_1.partial", "step_2.replaced", "step_3.replaced", "step_3", "other.partial"):
        fill(tmp_path / name, name)
    tidy_up(tmp_path, "step_*")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["other.partial", "step_2", "step_3"]
    assert (tmp_path / "step_2" / "inside" / "file").read_text() == "step_2.replaced"
    assert (tmp_path / "step_3" / "inside" / "file").read_text() == "step_3"


def test_somebodys_folder_in_the_way_of_a_file_is_left_alone(tmp_path: Path) -> None:
    fill(tmp_path / "a.json.partial", "precious")
    with pytest.raises(OSError, match="directory"):
        write_text_atomically(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json.partial" / "inside" / "file").read_text() == "precious"
    assert not (tmp_path / "a.json").exists()


def test_a_move_takes_the_place_of_files_and_folders(tmp_path: Path) -> None:
    for path in (tmp_path / "one", tmp_path / "other"):
        fill(path, path.name)
    move(tmp_path / "one", tmp_path / "other")
    assert (tmp_path / "other" / "inside" / "file").read_text() == "one"
    (tmp_path / "file").write_text("a file")
    move(tmp_path / "file", tmp_path / "other")
    assert (tmp_path / "other").read_text() == "a file"
    assert [each.name for each in tmp_path.iterdir()] == ["other"]

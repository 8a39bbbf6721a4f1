from __future__ import annotations

from pathlib import Path

from data_shards.files.folders import files_below, what_is_no_folder


def test_a_folder_and_one_to_be_made_are_well(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    for path in (tmp_path, tmp_path / "a" / "b", tmp_path / "link", tmp_path / "link" / "c"):
        assert what_is_no_folder(path) == ""


def test_files_and_links_to_nothing_are_named_on_the_whole_way(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.touch()
    link.symlink_to("gone")
    assert what_is_no_folder(file) == "it is a file"
    assert what_is_no_folder(file / "a" / "b") == f"{file} is a file"
    assert what_is_no_folder(link) == "it is a link to gone, which is not there"
    assert what_is_no_folder(link / "a") == f"{link} is a link to gone, which is not there"


def test_a_link_to_itself_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert "which is not there" in what_is_no_folder(tmp_path / "loop")


def test_files_are_found_through_links_and_each_folder_once(tmp_path: Path) -> None:
    images, elsewhere = tmp_path / "images", tmp_path / "elsewhere"
    (images / "part").mkdir(parents=True)
    elsewhere.mkdir()
    for path in (images / "part" / "b.png", images / "._a.png", elsewhere / "c.PNG"):
        path.touch()
    (images / "linked").symlink_to(elsewhere)
    (images / "part" / "round").symlink_to(images)
    (images / "twice").symlink_to(images / "part")
    found = list(files_below(images, frozenset({".png"})))
    assert found == [images / "linked" / "c.PNG", images / "part" / "b.png"]
    assert list(files_below(tmp_path / "none", frozenset({".png"}))) == []

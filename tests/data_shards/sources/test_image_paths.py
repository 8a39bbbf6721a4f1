"""Images that a table names and that are not there: told with the row, and why."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.records.study import SourceImage
from data_shards.sources.formats.tables import Row
from data_shards.sources.image_paths import image_path, told_with_its_row


def path_of(cell: str, root: Path) -> str:
    path = image_path(Row(Path("t.csv"), 4, {"image": cell}), "image", root)
    assert path.file == root / cell
    return path.id


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("https://example.org/x/a.png", "line 4: https://example.org/x/a.png is a URL"),
        ("s3://bucket/a.png", "is a URL"),
        ("file:///a.png", "is a URL"),
        (r"C:\data\a.png", r"line 4: .*has backslashes"),
        (r".\a.png", "has backslashes"),
        (r"sub\a.png", "has backslashes"),
        (r"\\server\share\a.png", "has backslashes"),
        ("C:/data/a.png", "line 4: 'C:/data/a.png' is a path of Windows: write the path below"),
        ("d:/a.png", "is a path of Windows"),
        ("//server/share/a.png", "is a path of Windows"),
        ("FILE:///a.png", "is a URL"),
        ("=A2", "line 4: .*a formula"),
        ("None", "line 4: column 'image' is empty"),
        ("a.png\0", "line 4: .*NUL"),
    ],
)
def test_what_is_no_path_here_is_refused(tmp_path: Path, cell: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        path_of(cell, tmp_path)


@pytest.mark.parametrize(
    ("cell", "path"),
    [
        ("./a//b.png", "a/b.png"),
        ("/abs/a.png", "/abs/a.png"),
        ("a b#1.png", "a b#1.png"),
        ("7", "7"),
        ("C:a.png", "C:a.png"),
        ("a/../b.png", "b.png"),
        ("a..b/...png", "a..b/...png"),
    ],
)
def test_other_cells_are_paths_as_they_stand(tmp_path: Path, cell: str, path: str) -> None:
    assert path_of(cell, tmp_path) == path


def test_a_backslash_may_be_part_of_a_name_that_is_there(tmp_path: Path) -> None:
    (tmp_path / r"a\b.png").touch()
    assert path_of(r"a\b.png", tmp_path) == r"a\b.png"


def test_a_path_has_one_id_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cell in ("f/a.png", f"{tmp_path}/f/a.png", f"{tmp_path}/g/../f/a.png", "../f/../f/a.png"):
        if cell.startswith(".."):
            monkeypatch.chdir(tmp_path)
            assert path_of(cell.replace("../f", f"../{tmp_path.name}/f", 1), Path()) == "f/a.png"
        else:
            assert path_of(cell, tmp_path) == "f/a.png"
    assert path_of(f"{tmp_path.parent}/a.png", tmp_path) == f"{tmp_path.parent}/a.png"


def test_a_link_out_of_the_folder_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.png").symlink_to("../store/a.png")
    assert path_of(f"{tmp_path}/root/a.png", tmp_path / "root") == "a.png"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("SCAN 1.PNG", r"\('scan 1\.png' is there: mind upper and lower case\)"),
        ("scan 1", r"\('scan 1\.png' is there: add the suffix\)"),
        ("scan 1.jpg", r"\('scan 1\.png' is there: another suffix\?\)"),
        ("scan%201.png", r"\('scan 1\.png' is there: write blanks"),
        ("'scan 1.png'", r"\('scan 1\.png' is there: write it without quotes\)"),
        ("scan 1.png;b.png", "several paths in one cell"),
        ("['scan 1.png', 'b.png']", "several paths in one cell"),
        ("other.png", "restore the file$"),
        ("no/folder/a.png", "restore the file$"),
        (
            "MÜLLER.png".lower(),
            r"\('m\S+ller\.png' is there in another Unicode form: the table has NFC, the ",
        ),
        ("Archive/1.png", r"\('archive' is there: mind upper and lower case\)"),
        ("größe/1.png", r"is there in another Unicode form: the table has NFC, the folder NFD"),
        ("GRÖßE/1.png", "mind upper and lower case"),
        ("~/a.png", "~ is not filled in within tables"),
        ("$DATA/a.png", "DATA is not filled in within tables"),
    ],
)
def test_a_missing_file_is_told_with_its_row_and_what_lies_there(
    tmp_path: Path, name: str, reason: str
) -> None:
    (tmp_path / "scan 1.png").touch()
    (tmp_path / unicodedata.normalize("NFD", "müller.png")).touch()
    (tmp_path / "archive").mkdir()
    (tmp_path / unicodedata.normalize("NFD", "größe")).mkdir()
    path = tmp_path / name
    error = InputError(f"{path}: missing image: restore the file")
    told = told_with_its_row(error, SourceImage(name, path, "PA", "t.csv: line 4"))
    assert str(told).startswith(f"t.csv: line 4: {path}: missing image")
    with pytest.raises(InputError, match=reason):
        raise told


def test_an_image_that_no_table_lists_is_told_as_it_is() -> None:
    error = InputError("x")
    assert told_with_its_row(error, SourceImage("a", Path("a"), "PA")) is error

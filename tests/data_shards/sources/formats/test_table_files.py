"""Encodings of tables, and files that are no tables, by what they are."""

from __future__ import annotations

import gzip
import os
import zipfile
from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.sources.formats.tables import read_rows

TEXT = "id,text\n1,The patient’s heart – 37 °C\n2,é\n"


def texts(path: Path, encoding: str | None = "utf-8") -> list[str]:
    return [row["text"] for row in read_rows(path, ("id", "text"), encoding)]


def table(folder: Path, content: bytes, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("setting", [None, "utf-8", "windows-1252"])
def test_a_mark_decides_the_encoding(tmp_path: Path, mark: str, setting: str | None) -> None:
    for content in (TEXT.encode(mark), gzip.compress(TEXT.encode(mark))):
        assert texts(table(tmp_path, content), setting) == ["The patient’s heart – 37 °C", "é"]


def test_a_mark_of_the_other_byte_order_is_known(tmp_path: Path) -> None:
    content = b"\xfe\xff" + TEXT.encode("utf-16-be")
    assert texts(table(tmp_path, content))[1] == "é"


@pytest.mark.parametrize("name", ["utf-16-le", "utf-16-be", "windows-1252"])
def test_a_table_without_a_mark_is_read_by_the_setting(tmp_path: Path, name: str) -> None:
    assert texts(table(tmp_path, TEXT.encode(name)), name)[0] == "The patient’s heart – 37 °C"


@pytest.mark.parametrize("name", ["utf-16-le", "utf-16-be"])
def test_two_bytes_a_letter_without_a_mark_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=rf"UTF-16 .*source\.encoding={name}"):
        texts(table(tmp_path, TEXT.encode(name)))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("rows", [0, 5000])
def test_a_byte_of_another_encoding_is_told_with_its_line(
    tmp_path: Path, end: str, rows: int
) -> None:
    text = end.join(["id,text", *["0,ok ö"] * rows, ""]).encode() + b"1,patient\x92s"
    message = rf"line {rows + 2}: byte 0x92 is not UTF-8 text: Windows-1252\? .*encoding=windows"
    with pytest.raises(InputError, match=message):
        texts(table(tmp_path, text))
    with pytest.raises(InputError, match=rf"line {rows + 2}: byte 0x92"):
        texts(table(tmp_path, gzip.compress(text)))


def test_where_no_setting_says_the_encoding_none_is_offered(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 2: byte 0xff .*Save the table as UTF-8$"):
        texts(table(tmp_path, b"id,text\n1,\xff\n"), None)
    with pytest.raises(InputError, match=r"save it as UTF-8$"):
        texts(table(tmp_path, TEXT.encode("utf-16-le")), None)


def test_a_table_that_ends_within_a_character_was_cut(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 3: ends within a character: fetch"):
        texts(table(tmp_path, TEXT.encode("utf-16")[:-5]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (gzip.compress(b""), "an empty file"),
        (b"\0" * 5000, "NUL bytes alone"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, "an old Excel workbook.*as CSV"),
        (b"PAR1\x15\x04", "a Parquet file.*name it .parquet"),
        (b"ARROW1\0\0", "Arrow"),
        (b"SQLite format 3\0", "SQLite"),
        (b"\x80\x04\x95\x10", "a Python pickle, which is never opened"),
        (b"\x28\xb5\x2f\xfd\x04", "compressed.*unpack"),
        (b"BZh91AY", "compressed.*unpack"),
        (b"%PDF-1.7", "a PDF"),
        (b"\x89PNG\r\n\x1a\n", "an image"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"\n<html lang=en>", "a web page"),
        (b"<table><tr><td>image", "a web page"),
        (gzip.compress(TEXT.encode() * 100)[:-20], "the gzip file is damaged"),
        (b"\x1f\x8bnot", "the gzip file is damaged"),
    ],
    ids=range(18),
)
def test_files_that_are_no_tables_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        texts(table(tmp_path, content))
    assert str(tmp_path / "t.csv") in str(caught.value)


@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("[Content_Types].xml", "an Excel workbook.*as CSV"),
        ("mimetype", "an OpenDocument file"),
        ("pairs.csv", "a zip archive.*unpack"),
    ],
)
def test_workbooks_and_other_zips_are_told_apart(tmp_path: Path, member: str, message: str) -> None:
    with zipfile.ZipFile(tmp_path / "t.xlsx", "w") as file:
        file.writestr(member, "x")
    with pytest.raises(InputError, match=message):
        texts(tmp_path / "t.xlsx")


def test_a_folder_and_a_pipe_are_no_tables(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a folder"):
        texts(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="no file"):
        texts(tmp_path / "pipe")


def test_a_setting_that_wants_a_mark_is_told_where_there_is_none(tmp_path: Path) -> None:
    path = table(tmp_path, "a,b\n1,2\n".encode("utf-16-le"))
    with pytest.raises(InputError, match=r"t.csv: not utf-16 text .* utf-16-le or utf-16-be"):
        texts(path, "utf-16")

"""JSON of others: its numbers, encodings, and what is refused."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.sources.formats.json_values import parse_json, read_json

VALUE = {"ä": [1, Decimal("7.10"), None, True]}
TEXT = '{"ä": [1, 7.10, null, true]}'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_file_is_read_in_every_encoding_that_json_may_have(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.json").write_bytes(TEXT.encode(encoding))
    assert read_json(tmp_path / "a.json") == VALUE
    assert str(parse_json(TEXT)["ä"][1]) == "7.10"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"a": "\xff"}', "not UTF-8 text"),
        (b"[" * 100_000, "too deep to be meant"),
        (b'{"b": 0, "c": {"a": 1, "a": 1}}', "'a' is there twice: keep one"),
    ],
)
def test_what_is_no_json_is_refused_with_the_file(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.json: not valid JSON .*{said}|a\.json: {said}"):
        read_json(path)


def test_what_is_no_file_is_refused_and_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    for name, said in (("pipe.json", "a pipe"), ("none.json", "no such file"), ("", "a folder")):
        with pytest.raises(InputError, match=said):
            read_json(tmp_path / name)

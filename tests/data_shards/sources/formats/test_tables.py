"""Rows of tables: where each begins, its cells, and what the readers refuse, with the line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.sources.formats.tables import Row, read_rows


def rows_of(tmp_path: Path, content: str | bytes, name: str = "t.csv") -> list[Row]:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_rows(path, ("id", "text")))


def refusal(tmp_path: Path, content: str | bytes, name: str = "t.csv") -> str:
    with pytest.raises(InputError) as caught:
        rows_of(tmp_path, content, name)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / name))
    assert "\n" not in message
    assert len(message) < 700
    return message


def test_a_row_is_where_it_begins(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, 'id,text\n1,"a\nb\n\nc"\n\n2,"d"\n3,e\n')
    assert [(row.line, row["id"], row["text"]) for row in rows] == [
        (2, "1", "a\nb\n\nc"),
        (7, "2", "d"),
        (8, "3", "e"),
    ]


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_lines_end_in_any_way(tmp_path: Path, end: str) -> None:
    rows = rows_of(tmp_path, end.join(['"id",text', '1,"a, b"', "2,c", ""]))
    assert [(row.line, row["text"]) for row in rows] == [(2, "a, b"), (3, "c")]


def test_blanks_around_cells_and_names_are_none_of_them(tmp_path: Path) -> None:
    [row] = rows_of(tmp_path, '\n id , text\n 1 , "a, b"\n')
    assert (row["id"], row["text"]) == ("1", "a, b")


def test_rows_of_nothing_are_left_out_and_cells_of_columns_without_a_name_may_lack(
    tmp_path: Path,
) -> None:
    rows = rows_of(tmp_path, "id,text,,\n1,\n,\n , \n2,b,, \n3,c,,,,\n")
    assert [(row.line, row["id"], row["text"]) for row in rows] == [
        (2, "1", ""),
        (5, "2", "b"),
        (6, "3", "c"),
    ]


def test_a_cell_may_be_long(tmp_path: Path) -> None:
    [row] = rows_of(tmp_path, f'id,text\n1,"{"word " * 40_000}"\n')
    assert len(row.text("text").split()) == 40_000


def test_columns_that_nobody_asks_for_may_be_as_they_like(tmp_path: Path) -> None:
    [row] = rows_of(tmp_path, "id,text,x,x,,\n1,a,2,3,,\n")
    assert row["text"] == "a"
    [row] = rows_of(tmp_path, '{"id": 1, "text": "a", "x": [1, {}], "y": {"z": null}}\n', "t.jsonl")
    assert row["text"] == "a"


def test_gzip_is_known_by_its_content(tmp_path: Path) -> None:
    for name in ("t.csv", "t.csv.gz"):
        [row] = rows_of(tmp_path, gzip.compress(b"id,text\n1,a\n"), name)
        assert row["text"] == "a"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('id,text\n1,a\n2,"b\n3,c\n4,d\n', "line 3: a quote out of place"),
        ('id,text\n1,a\n2,"b "c" d"\n', "line 3: a quote out of place"),
        ('id,text\n1,"a\nb"\n2,"c"d\n', "line 4: a quote out of place"),
        (f'id,text\n1,a\n2,"{"x" * 10_000_001}', "line 3: a cell of more than 10,000,000"),
        ("id,text,text\n1,a,b\n", "line 1: column 'text' is there twice"),
        ("\nid,text, text\n1,a,b\n", "line 2: column 'text' is there twice"),
        ("id,text\n1,a,b\n", "line 2: more cells"),
        ("id,text,x\n1,a,b\n2,a\n", "line 3: 2 of 3 cells: is the row cut? Fetch or write"),
        ("x,id,text\n7,a,b\n8", "line 3: 1 of 3 cells: is the row cut?"),
        ("ID,Texts\n1,a\n", "found 'ID', 'Texts': did you mean 'ID'?"),
        ("id;text\n1;a\n", "separated by ';'"),
        ("sep=,\nid,text\n1,a\n", "found 'sep=', '': line 2 has them: remove what stands above it"),
        ("# made by us, today\n\nid, text\n1,a\n", "line 3 has them: remove what"),
        ("\uff29D,text\n1,a\n", "did you mean '\uff29D'?"),
        ("id\ttext\n1\ta\n", "tabs in .tsv"),
        ("id,text\u200b\n1,a\n", r"'text\u200b'"),
        (",".join(f"column {n}" for n in range(500)), "and 480 more"),
        ("x" * 5000 + "\n", "no column 'id', 'text': found 'xxx"),
        ('{"id": 1, "text": "a"}\n', "JSON: name it .jsonl"),
        ('[{"id": 1, "text": "a"}]', "JSON: name it .jsonl"),
        ("\n \n", "an empty file"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_what_is_no_csv_is_told_with_the_line(tmp_path: Path, content: str, message: str) -> None:
    assert message in refusal(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"id": 1, "text": "a"}\n{"id": 1, "text": "a", "text": "b"}\n',
            "line 2: .*'text' is there",
        ),
        ('\n{"id": 1}\n', "no column 'text'"),
        ("[1]\n", "line 1: expected one JSON object a line"),
        ("[\n", "line 1: not valid JSON"),
        ("[" * 100_000, "line 1: not valid JSON"),
        ('{"id": ' + "9" * 5000 + "}\n", "line 1: not valid JSON"),
        ("", "an empty file"),
    ],
    ids=range(7),
)
def test_what_are_no_json_lines_is_told_with_the_line(
    tmp_path: Path, content: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        rows_of(tmp_path, content, "t.jsonl")


def test_cells_are_refused_by_line_and_column(tmp_path: Path) -> None:
    lines = (
        '{"id": null, "text": 5}',
        '{"id": true, "text": ["a"]}',
        '{"id": "None", "text": {"a": 1}}',
        '{"id": 1.50, "text": NaN}',
        '{"id": 2.0}',
    )
    *bad, good = rows_of(tmp_path, "\n".join(lines), "t.jsonl")
    messages = []
    for row in bad:
        with pytest.raises(InputError) as caught:
            row.filled("id")
        messages.append(str(caught.value).removeprefix(f"{tmp_path}/t.jsonl: "))
    assert messages == [
        "line 1: column 'id' is empty: fill it in or remove the row",
        "line 2: column 'id' is true: a name is text or a whole number: put it in quotes",
        "line 3: column 'id' is empty ('None'): fill it in or remove the row",
        "line 4: column 'id' is 1.50: a name is text or a whole number: put it in quotes",
    ]
    for row, message in zip(bad, ("5, and not text", "a list", "a mapping"), strict=False):
        with pytest.raises(InputError, match=f"line {row.line}: column 'text' is {message}"):
            row.text("text")
    assert (bad[3].text("text"), good.text("text"), good.filled("id")) == ("", "", "2")


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_column_in_another_unicode_form_is_told_so(tmp_path: Path, name: str) -> None:
    header, wanted = "größe".replace("ö", "o\u0308"), "größe"
    content = f"{header}\n1\n" if name == "t.csv" else f'{{"{header}": 1}}\n'
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=r"is the same in another Unicode form \(NFC, NFD\)"):
        list(read_rows(tmp_path / name, (wanted,)))

"""JSON lines that several processes write, and that a kill may cut."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from data_shards.errors import InputError
from data_shards.files.json_lines import JsonLines, Line, rank_writer, read_lines


def test_lines_read_back_in_the_order_they_were_written(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "new" / "skipped.jsonl")
    assert lines.read() == []
    for step in (3, 1, 2):
        lines.append({"step": step})
    assert [line["step"] for line in lines.read()] == [3, 1, 2]


def test_a_half_written_line_is_not_there_yet(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "skipped.jsonl")
    lines.append({"step": 1})
    with lines.path.open("a") as file:
        file.write('{"step": 2, "ke')
    assert lines.read() == [{"step": 1}]


def test_two_writers_have_a_file_each_and_are_read_together(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "skipped.jsonl")
    for step in (1, 2):
        for rank in (1, 0):
            lines.append({"step": step, "rank": rank}, writer=rank_writer(rank))
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "skipped-rank1.jsonl",
        "skipped.jsonl",
    ]
    assert lines.read() == [{"step": step, "rank": rank} for rank in (0, 1) for step in (1, 2)]


def test_what_is_kept_is_kept_of_every_writer_and_half_lines_of_none(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "skipped.jsonl")
    for rank in (0, 1):
        for step in (1, 2, 3):
            lines.append({"step": step, "rank": rank}, writer=rank_writer(rank))
    with lines.path.open("a") as file:
        file.write('{"step": 1')
    lines.keep(lambda line: line["step"] != 2)
    assert [(line["rank"], line["step"]) for line in lines.read()] == [
        *((0, 1), (0, 3)),
        *((1, 1), (1, 3)),
    ]
    assert lines.path.read_text().endswith("}\n")


def test_files_of_another_name_are_nobody_elses_lines(tmp_path: Path) -> None:
    JsonLines(tmp_path / "starts.jsonl").append({"step": 1})
    assert JsonLines(tmp_path / "skipped.jsonl").read() == []


def test_the_end_of_a_file_begins_with_its_first_whole_line(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "metrics.jsonl")
    for step in range(100):
        lines.append({"step": step})
    read = read_lines(lines.path, last_bytes=50)
    assert [line["step"] for line in read] == list(range(100 - len(read), 100))
    assert 1 < len(read) < 6
    assert read_lines(lines.path, last_bytes=10**6) == lines.read()


@pytest.mark.parametrize("line", ["{not json}", "[1, 2]", "7"])
def test_what_is_no_json_object_is_refused_with_its_file(line: str, tmp_path: Path) -> None:
    path = tmp_path / "skipped.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    with pytest.raises(
        InputError, match=r"skipped\.jsonl, line 2: not a line of JSON: .*remove that line"
    ):
        JsonLines(path).read()


def test_lines_that_an_editor_saved_in_utf_16_are_refused_and_not_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n', encoding="utf-16")
    whole = path.read_bytes()
    with pytest.raises(InputError, match="line 1: not a line of JSON"):
        JsonLines(path).mend()
    assert path.read_bytes() == whole
    path.write_text('{"step": 1}\n{"step": 2}\n', encoding="utf-8-sig")
    assert JsonLines(path).read() == [{"step": 1}, {"step": 2}]


AT_THE_END = {
    "half a line": b'{"step": 6, "spl',
    "zeros": bytes(300),
    "zeros and a line break": bytes(300) + b"\n",
    "no text": b"\xff\xfe\n",
    "endless brackets": b"[" * 100_000 + b"\n",
    "endless digits": b'{"step": ' + b"1" * 10_000 + b"}\n",
    "an odd line": b'{"step": "6"}\n',
}


@pytest.mark.parametrize("tail", AT_THE_END.values(), ids=AT_THE_END)
def test_what_a_crash_left_at_the_end_is_no_line_and_is_cut_off(
    tail: bytes, tmp_path: Path
) -> None:
    lines = JsonLines(tmp_path / "log.jsonl", lambda line: isinstance(line.get("step"), int))
    for step in (1, 2):
        lines.append({"step": step})
    whole = lines.path.read_bytes()
    with lines.path.open("ab") as file:
        file.write(tail)
    assert lines.read() == [{"step": 1}, {"step": 2}]
    lines.mend()
    assert lines.path.read_bytes() == whole


def test_a_line_after_half_of_one_is_not_lost(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "log.jsonl")
    lines.append({"step": 1})
    with lines.path.open("ab") as file:
        file.write(b'{"step"')
    lines.append({"step": 2})
    assert lines.read() == [{"step": 1}, {"step": 2}]


def test_bad_lines_are_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"a": 1}\n\xff\n{"a": 2}\n')
    assert read_lines(path, skip_bad=True) == [{"a": 1}, {"a": 2}]


@pytest.mark.timeout(10)
def test_a_pipe_is_refused_by_who_reads_and_by_who_writes(tmp_path: Path) -> None:
    lines = JsonLines(tmp_path / "log.jsonl")
    os.mkfifo(lines.path)
    with pytest.raises(InputError, match="a pipe, and should be a file"):
        lines.read()
    with pytest.raises(InputError, match="a pipe, and should be a file"):
        lines.append({"step": 1})


def test_lines_that_cannot_follow_others_are_named_by_their_numbers(tmp_path: Path) -> None:
    def follows(earlier: Line, line: Line) -> bool:
        return bool(line["n"] > earlier["n"])

    path = tmp_path / "lines.jsonl"
    for numbers, where in {
        (1, 2, 3, 1, 2, 3): "lines 4 to 6",
        (1, 2, 1, 3): "lines 3 to 3",
        (1, 2, 1, 2, 3, 3): "lines 3 to 4",
    }.items():
        path.write_text("".join(json.dumps({"n": n}) + "\n" for n in numbers))
        for skip_bad in (True, False):
            with pytest.raises(InputError, match=rf"lines\.jsonl, {where}: repeat"):
                read_lines(path, follows=follows, skip_bad=skip_bad)
        assert len(read_lines(path)) == len(numbers)
    # Of the end alone the numbers are not known.
    with pytest.raises(InputError, match=r"lines\.jsonl: repeat"):
        read_lines(path, follows=follows, last_bytes=22)
    path.write_text('{"n": 1}\n{"n": 2}\n')
    assert len(read_lines(path, follows=follows)) == 2

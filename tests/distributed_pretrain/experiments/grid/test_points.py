from __future__ import annotations

from pathlib import Path

import pytest

from data_shards.errors import InputError
from distributed_pretrain.experiments.grid.points import LONGEST_NAME, read_points, read_rows


def names(*words: str, parts: int | None = None) -> list[str]:
    return [point.name for point in read_points(words, parts=parts)]


def test_a_command_that_leaves_nothing_open_is_one_task() -> None:
    [point] = read_points(["pretrain", "a.yaml", "seed=1"])
    assert (point.name, point.values) == ("only", {})
    assert point.words == ("pretrain", "a.yaml", "seed=1")


def test_the_last_key_varies_fastest() -> None:
    points = read_points(["pretrain", "a.yaml", "seed=1,2", "optimizer.learning_rate=1e-3,1e-4"])
    assert [point.words[2:] for point in points] == [
        ("seed=1", "optimizer.learning_rate=1e-3"),
        ("seed=1", "optimizer.learning_rate=1e-4"),
        ("seed=2", "optimizer.learning_rate=1e-3"),
        ("seed=2", "optimizer.learning_rate=1e-4"),
    ]
    assert points[1].values == {"seed": "1", "optimizer.learning_rate": "1e-4"}
    assert points[1].name == "seed=1__optimizer.learning_rate=1e-4"


def test_several_profiles_are_told_apart_by_their_file_names() -> None:
    assert names("pretrain", "configs/lovt.yaml,configs/clip.yaml", "seed=1,2") == [
        *("lovt__seed=1", "lovt__seed=2", "clip__seed=1", "clip__seed=2")
    ]


@pytest.mark.parametrize(
    "word",
    ["data.views=[PA,AP]", "x={a: 1, b: 2}", "x='a,b'", 'x="a,b"', "x=[[1,2],[3,(4,5)]]"],
)
def test_commas_in_brackets_and_quotes_separate_nothing(word: str) -> None:
    [point] = read_points(["pretrain", "a.yaml", word])
    assert point.words[-1] == word


def test_lists_may_be_values() -> None:
    points = read_points(["pretrain", "a.yaml", "data.views=[PA,AP],[PA]"])
    assert [point.words[-1] for point in points] == ["data.views=[PA,AP]", "data.views=[PA]"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.csv", "seed,data.views\n1,[PA]\n2,all\n"),
        ("rows.csv", "seed, data.views\n1, [PA]\n\n2, all\n"),
        ("rows.yaml", "- {seed: 1, data.views: [PA]}\n- {seed: 2, data.views: all}\n"),
    ],
)
def test_rows_belong_together(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    points = read_points(["pretrain", "a.yaml,b.yaml"], rows=read_rows(path))
    assert [point.words[1:] for point in points] == [
        (profile, *row)
        for profile in ("a.yaml", "b.yaml")
        for row in (("seed=1", "data.views=[PA]"), ("seed=2", "data.views=all"))
    ]


def test_values_of_yaml_are_written_as_overrides_read_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.yaml"
    path.write_text("- {a: true, b: null, c: 0.001, d: {name: clip, e: [1, 2]}}\n")
    assert read_rows(path) == [
        {"a": "true", "b": "null", "c": "0.001", "d": "{e: [1, 2], name: clip}"}
    ]


def test_values_of_yaml_are_as_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "rows.yaml"
    path.write_text(
        "- {run_folder: 2026-11-28, seed: 010, a: 'null', b: 12:30, c: [\"x, y\", no]}\n"
    )
    assert read_rows(path) == [
        {
            "run_folder": "2026-11-28",
            "seed": "010",
            "a": "'null'",
            "b": "12:30",
            "c": "['x, y', no]",
        }
    ]


def test_a_mark_in_front_of_a_table_of_points_is_no_part_of_a_key(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xef\xbb\xbfseed,run_folder\n1,a\n")
    assert read_rows(path) == [{"seed": "1", "run_folder": "a"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", b"seed,views,seed\n1,a,2\n", "line 1: 'seed' is there twice"),
        ("rows.csv", b"", "a first line of keys"),
        ("rows.yaml", b"- {seed: 1, seed: 2}\n", "line 1: 'seed' is there twice"),
        ("rows.yaml", b"- {seed: " + b"[" * 20_000, "too deep"),
        ("rows.csv", b"seed,views\n1\n", "as many values in every line"),
        ("rows.csv", b"seed\n1,2\n", "as many values in every line"),
        ("rows.csv", b"seed\n", "a first line of keys"),
        ("rows.yaml", b"seed: 1\n", "expected a list of mappings"),
        ("rows.yaml", b"- 1\n", "expected a list of mappings"),
        ("rows.yaml", b"[]\n", "expected a list of mappings"),
        ("rows.yaml", b"- {seed: [\n", "not YAML"),
        ("rows.csv", b"seed\n\xff\xfe\n", "not a text file"),
    ],
    ids=range(12),
)
def test_bad_rows_are_one_clear_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_rows(path)
    assert "\n" not in str(caught.value)


def test_rows_that_are_not_there_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_rows(tmp_path / "rows.csv")


def test_parts_are_a_task_each() -> None:
    points = read_points(["data_shards", "build", "a.yaml", "part={i}/{n}"], parts=3)
    assert [point.words[-1] for point in points] == ["part=1/3", "part=2/3", "part=3/3"]
    assert [point.name for point in points] == ["part=1-of-3", "part=2-of-3", "part=3-of-3"]


@pytest.mark.parametrize(("word", "parts"), [("part={i}/{n}", None), ("seed=1", 3)])
def test_parts_and_braces_go_together(word: str, parts: int | None) -> None:
    with pytest.raises(InputError, match="--parts"):
        read_points(["data_shards", "build", "a.yaml", word], parts=parts)


@pytest.mark.parametrize("word", ["seed=1,1", "x=a/b,a:b", "a/lovt.yaml,b/lovt.yaml"])
def test_two_tasks_of_one_name_are_refused(word: str) -> None:
    with pytest.raises(InputError, match="two tasks would be called"):
        read_points(["pretrain", "a.yaml", word])


def test_names_are_folders_in_any_shell() -> None:
    [name, _] = names("pretrain", "a.yaml", "x=../../etc; rm $HOME,b")
    assert name == "x=..-..-etc-rm-HOME"


def test_long_names_are_cut_and_stay_different() -> None:
    long = "x" * 300
    [one, two] = names("pretrain", "a.yaml", f"x={long}1,{long}2")
    assert one != two
    assert len(one) == len(two) == LONGEST_NAME


def test_run_folders_with_values_in_their_names_are_subjects_and_no_overrides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (1, 2):
        (tmp_path / "runs" / f"seed={seed}__optimizer.learning_rate=1e-3").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    points = read_points(["evaluate", "runs/*=*", "split=test"])
    assert [point.words[1] for point in points] == [
        "runs/seed=1__optimizer.learning_rate=1e-3",
        "runs/seed=2__optimizer.learning_rate=1e-3",
    ]
    assert [point.name for point in points] == [Path(point.words[1]).name for point in points]


def test_a_pattern_that_nothing_matches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing there is called so"):
        read_points(["evaluate", f"{tmp_path}/*"])

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from data_shards.errors import InputError
from data_shards.profiles import Config, dump_profile, load_profile
from data_shards.written import as_override, read_yaml


class Inside(Config):
    words: tuple[str, ...] = ()
    pair: tuple[float, float] = (0.0, 0.0)


class Every(Config):
    """A field of each kind that the profiles of the project have."""

    folder: Path = Path("x")
    other: Path | None = None
    title: str = "x"
    remark: str | None = "x"
    count: int = 1
    ratio: float = 1.0
    switch: bool = False
    choice: Literal["on", "none", "no"] = "no"
    stage: Literal[0, 1, 2] = 0
    counts: tuple[Annotated[int, Field(ge=0)], ...] = ()
    where: dict[str, tuple[str, ...]] = Field({})
    options: dict[str, str | int | bool] = Field({})
    inside: Inside = Inside()


def read(tmp_path: Path, text: str = "", *overrides: str) -> Every:
    path = tmp_path / "profile.yaml"
    path.write_text(text, encoding="utf-8")
    return load_profile(Every, path, overrides)


TEXTS = (
    *("2026-11-28", "2026-99-99", "20261128", "010", "1.10", "1_000", "0x1F", "12:30:00", "1e3"),
    *(
        "on",
        "no",
        "True",
        ".inf",
        "x",
        "%j",
        "@x",
        "!x",
        "&a",
        "*a",
        "<<",
        "=",
        "|",
        "x: y",
        "x #1",
    ),
    *(
        "set #2/shards",
        "{x}",
        "[x]",
        "{x}/y",
        "'a' b",
        "it's",
        "a=b",
        "-",
        "?",
        "\u00e9",
        "a\nb",
        "a,b",
    ),
)


@pytest.mark.parametrize("typed", TEXTS)
def test_a_path_and_a_text_of_an_override_are_what_was_typed(tmp_path: Path, typed: str) -> None:
    config = read(tmp_path, "", f"folder={typed}", f"title={typed}", f"where.x={typed}")
    assert config.folder == Path(typed)
    assert config.title == typed
    # Where a list may stand, brackets are one.
    assert config.where["x"] == (("x",) if typed == "[x]" else (typed,))
    assert read(tmp_path, dump_profile(config)) == config


@pytest.mark.parametrize("typed", [*TEXTS[:13], "set#2", "a=b", "it's"])
def test_a_profile_needs_no_quotes_to_say_the_same(tmp_path: Path, typed: str) -> None:
    config = read(tmp_path, f"folder: {typed}\ntitle: {typed}\nwhere: {{x: [{typed}]}}\n")
    assert (config.folder, config.title, config.where) == (Path(typed), typed, {"x": (typed,)})


def test_quotes_around_the_whole_are_not_part_of_a_text(tmp_path: Path) -> None:
    config = read(tmp_path, "", "title='null'", 'folder="a\\tb"', "remark='it''s'", "counts=['1']")
    assert (config.title, config.folder, config.remark) == ("null", Path("a\tb"), "it's")
    assert config.counts == (1,)


def test_null_and_nothing_are_none_where_there_may_be_none(tmp_path: Path) -> None:
    assert read(tmp_path, "other: ~\nremark: null\n") == Every(other=None, remark=None)
    assert read(tmp_path, "remark:\n", "other=") == Every(other=None, remark=None)


@pytest.mark.parametrize(
    ("written", "count"), [("010", 10), ("1_000", 1000), ("+3", 3), (" 3 ", 3), ("'3'", 3)]
)
def test_whole_numbers_are_decimal(tmp_path: Path, written: str, count: int) -> None:
    assert read(tmp_path, f"count: {written}").count == count
    assert read(tmp_path, "", f"count={written}").count == count


NO_NUMBERS = (
    *("0x10", "0o10", "1:30", "true", "yes", "2026-11-28", "2026-99-99", "1e3", "3 # x"),
    *(
        "[" * 20_000,
        "{" * 20_000,
        "9" * 5000,
        "9" * 400,
        str(2**62),
        str(-(2**62)),
        "[1",
        "!!int 3",
        "&a 3",
        ".inf",
        "nan",
    ),
)


@pytest.mark.parametrize("written", NO_NUMBERS, ids=lambda written: written[:12])
def test_whatever_else_is_no_number_and_one_short_line(tmp_path: Path, written: str) -> None:
    with pytest.raises(InputError, match=r"count: .*(whole number|integer|empty)") as caught:
        read(tmp_path, "", f"count={written}")
    assert len(str(caught.value).replace(str(tmp_path), "")) < 250


@pytest.mark.parametrize("written", ["nan", "inf", ".nan", ".inf", "-inf", "1:30", "true"])
def test_a_ratio_is_a_finite_number(tmp_path: Path, written: str) -> None:
    with pytest.raises(InputError, match="ratio: "):
        read(tmp_path, f"ratio: {written}")


def test_fractions_and_choices_are_read(tmp_path: Path) -> None:
    config = read(tmp_path, "ratio: 1e-4\nswitch: on\nchoice: on\nstage: 2\ncounts: 7\n")
    assert config == Every(ratio=1e-4, switch=True, choice="on", stage=2, counts=(7,))
    given = ("ratio=.5", "switch=no", "choice=none", "stage=1", "counts=[1, 2]")
    assert read(tmp_path, "", *given) == Every(ratio=0.5, choice="none", stage=1, counts=(1, 2))


def test_options_are_texts_but_for_true_and_false(tmp_path: Path) -> None:
    text = "options: {exclusive: true, kill: yes, hint: 010, begin: 12:30, wait: false}\n"
    options = {"exclusive": True, "kill": "yes", "hint": "010", "begin": "12:30", "wait": False}
    assert read(tmp_path, text).options == options


def test_keys_are_texts(tmp_path: Path) -> None:
    config = read(tmp_path, "where: {no: [a], 010: [b], 2026-11-28: c}\n")
    assert config.where == {"no": ("a",), "010": ("b",), "2026-11-28": ("c",)}


def test_mappings_of_overrides_are_merged(tmp_path: Path) -> None:
    config = read(tmp_path, "inside: {words: [a]}\n", "inside={pair: [1, 2]}", "where.x={a}")
    assert config.inside == Inside(words=("a",), pair=(1.0, 2.0))


@pytest.mark.parametrize("write", ["{}", '"{}"'])
def test_a_home_and_variables_in_paths_are_filled_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    monkeypatch.setenv("HOME", "/home/anna")
    monkeypatch.setenv("STORE", "/big store")
    monkeypatch.delenv("ABSENT", raising=False)
    for typed, path in {
        "~/x": "/home/anna/x",
        "~": "/home/anna",
        "${STORE}/x": "/big store/x",
        "$STORE/x": "/big store/x",
        "a_${STORE}": "a_/big store",
        "a/~/x": "a/~/x",
        "cost$5": "cost$5",
        "a$ABSENT": "a$ABSENT",
    }.items():
        assert read(tmp_path, f"folder: {write.format(typed)}").folder == Path(path)
        assert read(tmp_path, "", f"folder={write.format(typed)}").folder == Path(path)
    # Texts are no paths.
    assert read(tmp_path, "title: ~/$STORE").title == "~/$STORE"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("${ABSENT}/x", "ABSENT} is not set"),
        ("x_${ABSENT}", "ABSENT} is not set"),
        ("$ABSENT/x", "ABSENT is not set"),
        ("${ABSENT:-x}", "variables are written"),
        ("~nobody-here/x", "~nobody-here is nobody's home"),
        ("''", "empty: write a path"),
        ("  ", "empty"),
        ("", "folder: empty: give it a value"),
        ("null", "folder: empty: give it a value"),
        ("a\0b", "NUL"),
        ("https://example.org/x", "is a URL"),
        ("s3://bucket/x", "is a URL"),
        ("C:\\data\\x", "is a drive of Windows"),
        ("C:/data/x", "is a drive of Windows"),
        ("\\\\server\\x", "is a drive of Windows"),
    ],
)
def test_paths_that_cannot_be_meant_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, message: str
) -> None:
    monkeypatch.delenv("ABSENT", raising=False)
    with pytest.raises(InputError, match=message):
        read(tmp_path, "", f"folder={typed}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: a\ntitle: b\n", "line 2: 'title' is there twice"),
        ("inside:\n  words: a\ncount: 1\ninside:\n  pair: [1, 2]\n", "line 4: 'inside' is there"),
        ("where: {a: x, 'a': y}\n", "line 1: 'a' is there twice"),
        ('folder: "a\\0b"\n', "NUL"),
        ("title: a\0b\n", "not a YAML profile"),
        ("count: !!python/object:os.system {}\n", "line 1: .*constructor"),
        ("inside: &a\n  <<: *a\n", "unknown key 'inside.<<'"),
        ("count: &a [*a, *a]\n", "count: .*whole number"),
        ("? [a]\n: 1\n", "line 1: found unhashable key"),
        ("count: 1\n---\ncount: 2\n", "line 2"),
        ("title: [a]\n", "title: one value is wanted"),
        ("count: {a: 1}\n", "count: a whole number is wanted"),
        ("inside: x\n", "inside: keys with values are wanted"),
        ("inside: {pair: 1}\n", "inside.pair: a list is wanted"),
        ("extends: [a, b]\n", "extends: one profile is wanted"),
        ('extends: "a\\0b"\n', "extends: .*NUL"),
    ],
)
def test_what_is_no_profile_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_profile_in_another_encoding_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "profile.yaml").write_bytes(b"count: 1\ntitle: Universit\xe4t\n")
    with pytest.raises(InputError, match="line 2: not UTF-8 text"):
        load_profile(Every, tmp_path / "profile.yaml")


def test_aliases_of_aliases_cost_nothing(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
    with pytest.raises(InputError, match="unknown key 'a0'"):
        read(tmp_path, "\n".join(lines))
    with pytest.raises(InputError, match=r"count: .*whole number.*\.\.\."):
        read(tmp_path, "\n".join(["where: {", *(f"{each}," for each in lines), "}", "count: *a29"]))


@pytest.mark.parametrize(
    "written", ["title: 010", "title: 'null'", "where: {a: [010, 'b, c']}", "inside: {words: [x]}"]
)
def test_an_override_made_of_yaml_says_what_the_yaml_said(tmp_path: Path, written: str) -> None:
    overrides = [f"{key}={as_override(value)}" for key, value in read_yaml(written).items()]
    assert read(tmp_path, "", *overrides) == read(tmp_path, written)


@pytest.mark.parametrize("block", ["|\n  a\n", ">\n  a\n\n"])
def test_the_line_end_of_a_block_is_no_part_of_its_text(tmp_path: Path, block: str) -> None:
    found = read(tmp_path, f"folder: {block}title: {block}")
    assert (found.folder, found.title) == (Path("a"), "a")

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from data_shards.nothing import NOTHING
from data_shards.sources.formats.cells import refuse_no_name_of_its_own, refuse_no_text, text_in


@pytest.mark.parametrize("word", [*sorted(NOTHING), "NaN", "None", "NULL", " nan ", "N/A", "\t"])
def test_words_for_nothing_are_nothing(word: str) -> None:
    assert text_in(word) == ""


@pytest.mark.parametrize("word", ["None.", "no", "nil", "0", "-", "false", "Nana", "unknown"])
def test_other_words_are_words(word: str) -> None:
    assert text_in(word) == word


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((None, ""), (float("nan"), ""), (True, "true"), (False, "false"), (7, "7")),
        *((Decimal("7.0"), "7"), (Decimal("0.50"), "0.50"), (Decimal("1e22"), "1" + "0" * 22)),
        *((Decimal("12345678901234567891.0"), "12345678901234567891"), (" a b ", "a b")),
        (Decimal("1e999999999"), "1E+999999999"),
        *(('="007"', "007"), (' ="a ""b"" c" ', 'a "b" c'), ('=""', ""), ('="NaN"', "")),
        *(("=007", "=007"), ('="a"&"b"', '="a"&"b"'), ('="a', '="a')),
    ],
)
def test_a_cell_is_text_by_its_type(value: Any, text: str) -> None:
    assert text_in(value) == text


@pytest.mark.parametrize(
    ("value", "message"),
    [([], "a list"), (["a"], "a list"), ({"a": 1}, "a mapping"), ("x \ud83d", "half a character")],
)
def test_what_is_no_text_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        text_in(value)


@pytest.mark.parametrize("value", [5, 0, True, False, Decimal("1.5"), float("inf")])
def test_a_number_is_no_report(value: Any) -> None:
    with pytest.raises(ValueError, match="not text"):
        refuse_no_text(value)


@pytest.mark.parametrize("value", [None, float("nan"), "5", ""])
def test_text_and_nothing_may_be_a_report(value: Any) -> None:
    refuse_no_text(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        *((True, "true"), (Decimal("1.5"), "1.5"), (float("inf"), "inf")),
        *(
            (Decimal("1e999999999"), "whole number"),
            ("1.23457E+12", "rounded"),
            ("1,2e+7", "rounded"),
        ),
        *(("p1\0", "NUL"), ("p\u200b1", "ZERO WIDTH SPACE"), ("\ufeffp1", r"U\+FEFF")),
        *(("=A1", "a formula"), ("=SUM(A1)", "a formula"), ("=7", "a formula")),
        ('="1.23E+12"', "rounded"),
        *((word, "names nothing") for word in ("unknown", "Anonymous", "-", "?", "...", "--")),
        *(("p\u00ad1", "SOFT HYPHEN"), ("p\n1", r"U\+000A"), ("p1\x92", r"U\+0092")),
    ],
)
def test_what_names_nothing_for_sure_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        refuse_no_name_of_its_own(value)


@pytest.mark.parametrize(
    "value", ["007", "p 1", "Ærø/1", "1e22", 7, 10**30, Decimal("7.0"), Decimal("1e22")]
)
def test_texts_and_whole_numbers_are_names(value: Any) -> None:
    refuse_no_name_of_its_own(value)

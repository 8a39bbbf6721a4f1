"""What a cell of a table says: text by the cell's type, or nothing."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal
from typing import Any

from data_shards.nothing import says_nothing

_HALF = re.compile("[\ud800-\udfff]")
# How spreadsheets are kept from taking a text for a number: ="007".
_PROTECTED = re.compile(r'="((?:[^"]|"")*)"')
_ROUNDED = re.compile(r"\d+([.,]\d+)?[eE]\+\d+")
# In place of a name these are said of many: all of unknown patients would be one.
_NO_NAME = frozenset(
    ("unknown", "unk", "missing", "not available", "anonymous", "anonymized", "anonymised")
)
# Of whole numbers written with an exponent.
_MOST_DIGITS = 40


def text_in(value: Any) -> str:
    """A cell as text without blanks around it; empty where it holds a word for nothing.

    `="007"`, as spreadsheets keep zeros, is the text 007.
    Cells of JSON are of any type, their numbers with decimals `Decimal`; whole ones lose these.
    Raises ValueError for lists, mappings and half a character.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal) and _is_whole(value):
        return str(int(value))
    if isinstance(value, list | dict):
        kind = "a list" if isinstance(value, list) else "a mapping"
        raise ValueError(f"is {kind}: one text is wanted, or a row for each")
    text = "" if value is None else _unprotected(str(value))
    if not text.isascii() and _HALF.search(text):
        raise ValueError("holds half a character (a lone surrogate): write the text anew")
    return "" if says_nothing(text) else text


def refuse_no_text(value: Any) -> None:
    """Raise ValueError for a number, or true and false, where a text is wanted."""
    if not isinstance(value, str | None) and text_in(value):
        raise ValueError(f"is {_shown(value)}, and not text: put texts in quotes")


def refuse_no_name(value: Any) -> None:
    """Raise ValueError for a cell that names nothing for sure: 1.5, true, infinity, 1.23E+12.

    Nor may control and invisible characters be in a name, with which one thing has two; and a
    formula names what it comes to in a spreadsheet.
    """
    if isinstance(value, bool | float) or (isinstance(value, Decimal) and not _is_whole(value)):
        raise ValueError(f"is {_shown(value)}: a name is text or a whole number: put it in quotes")
    text = _unprotected(str(value))
    if text.startswith("="):
        raise ValueError(f"is {text}, a formula of a spreadsheet: write what it comes to")
    if isinstance(value, str) and _ROUNDED.fullmatch(text):
        raise ValueError(f"is {text}, a number that a program has rounded: write all its digits")
    for letter in "" if text.isprintable() else text:
        if unicodedata.category(letter) in ("Cc", "Cf"):
            name = unicodedata.name(letter, "NUL" if letter == "\0" else "a control character")
            raise ValueError(f"holds U+{ord(letter):04X} ({name}), which cannot be seen: remove it")


def refuse_no_name_of_its_own(value: Any) -> None:
    """Raise ValueError as `refuse_no_name`, and for what is said of many: "unknown", "-"."""
    refuse_no_name(value)
    text = _unprotected(str(value))
    if text.casefold() in _NO_NAME or (text and not any(map(str.isalnum, text))):
        raise ValueError(
            f"is {text!r}, which names nothing: give each its own, or leave out the row"
        )


def _unprotected(cell: str) -> str:
    text = cell.strip()
    protected = _PROTECTED.fullmatch(text) if text.startswith("=") else None
    return protected[1].replace('""', '"').strip() if protected else text


def _is_whole(number: Decimal) -> bool:
    return number.adjusted() < _MOST_DIGITS and number == number.to_integral_value()


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

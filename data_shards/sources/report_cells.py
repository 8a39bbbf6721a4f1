"""Texts that went through another program before they came into a table, told by what it left."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

from data_shards.report_text.plain_text import MARKUP
from data_shards.sources.formats.cells import text_in

Trace: TypeAlias = Literal["escapes", "excel", "html", "controls", "lists", "formulas", "decoded"]

_READ = "read as what they stand for"
# What reports hold, and what becomes of it: of the first three when a report is made plain.
_TOLD: dict[Trace, tuple[str, str]] = {
    "escapes": ("line ends or quotes written with a backslash (\\n)", _READ),
    "excel": ("Excel's codes for characters (_x000D_)", _READ),
    "html": ("HTML tags or entities (<br>, &lt;)", _READ),
    "controls": ("NUL or other control characters", "read as blanks"),
    "lists": (
        "brackets or a b around quoted pieces, as programs print lists and bytes",
        "kept: join the pieces to one text",
    ),
    "formulas": (
        "a formula of a spreadsheet in place of a text",
        "kept: write what it comes to",
    ),
    "decoded": (
        "marks of a wrong encoding, as Ã© for é",
        "kept: save the table anew from where it came from, in UTF-8",
    ),
}
# Those that end lines are left to whoever cuts reports into sections.
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f]")
_PATTERNS: dict[Trace, re.Pattern[str]] = {
    # "w\r" may be somebody's shorthand.
    "escapes": re.compile(r"""\\+(?:r\\+n|n(?![a-z])|r(?=[A-Z])|["'])|(?<![A-Za-z\\])\\+[nr]"""),
    "excel": re.compile(r"_x[0-9A-Fa-f]{4}_"),
    "html": MARKUP,
    "controls": _CONTROL,
    "lists": re.compile(r"""\s*(?:[\[({]\s*['"].*['"],?\s*[\])}]|b'.*'|b".*")\s*\Z""", re.S),
    "formulas": re.compile(r"\s*=\s*[+@-]?\$?[A-Za-z.]+[$\d(!]"),
    # The last are codes of UTF-7.
    "decoded": re.compile(
        "Ã[\x80-\xbf]|Â[\xa0-\xbf]|â€|\ufffd|ï»¿"
        "|\\+A[A-P](?:[A-Za-z0-9+/]-|[AEIMQUYcgkosw048](?![\\w+/]))"
    ),
}
# What all of a report is, from its start on.
_WHOLE: tuple[Trace, ...] = ("lists", "formulas")
# Without any of these there is nothing to look for, as in nearly all reports.
_SUSPECT = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\\\\<&[{ÃÂâï\ufffd]|_x|\\+A|\\A\\s*(?:b?['\"]|[(=])"
)


def read_report_cell(text: str) -> tuple[str, set[Trace]]:
    """A report's cell, empty where it says nothing, and what of other programs is in it.

    Control characters are blanks, or what Windows-1252 has in their place; the rest is left to the
    reading of reports.
    """
    if not _SUSPECT.search(text):
        return text_in(text), set()
    found = {
        trace
        for trace, pattern in _PATTERNS.items()
        if (pattern.match if trace in _WHOLE else pattern.search)(text)
    }
    return text_in(_CONTROL.sub(_of_control, text)), found


def told(trace: Trace, reports: int, first: str) -> str:
    """What the build says of `reports` with this trace, of which the first stands in `first`."""
    held, done = _TOLD[trace]
    return f"{reports:,} x a report with {held} (first: {first}): {done}"


def _of_control(match: re.Match[str]) -> str:
    code = ord(match[0])
    return bytes([code]).decode("windows-1252", "replace") if code > 0x7F else " "

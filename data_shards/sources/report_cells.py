"""Texts that went through another program before they came into a table."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Literal, TypeAlias

from data_shards.sources.formats.cells import text_in

Escapes: TypeAlias = Literal["undo", "keep"]
Trace: TypeAlias = Literal["escapes", "excel", "html", "controls", "lists", "decoded"]

_UNDONE = "read as what they stand for", "set source.escapes=keep if they are meant as they stand"
_KEPT = "kept as source.escapes says", "leave it out to have them read"
# What reports hold, and, where the setting does not decide, what is done and may be done.
_TOLD: dict[Trace, tuple[str, tuple[str, str] | None]] = {
    "escapes": ("line ends or quotes written with a backslash (\\n)", None),
    "excel": ("Excel's codes for characters (_x000D_)", None),
    "html": ("HTML tags or entities (<br>, &lt;)", None),
    "controls": (
        "NUL or other control characters",
        ("read as blanks", "look at what wrote them"),
    ),
    "lists": (
        "brackets around quoted pieces, as programs print lists",
        ("kept", "join the pieces to one text"),
    ),
    "decoded": (
        "marks of a wrong encoding, as Ã© for é",
        ("kept", "save the table anew from where it came from, in UTF-8"),
    ),
}

_ESCAPE = re.compile(r"""\\+(r\\+n|[nrt"'])""")
_ESCAPED = {"t": "\t", '"': '"', "'": "'"}
_EXCEL_CODE = re.compile(r"_x([0-9A-Fa-f]{4})_")
_INLINE = "a|abbr|b|big|em|font|i|s|small|span|strong|sub|sup|tt|u"
_BLOCK = "address|article|blockquote|body|br|center|dd|div|dl|dt|h[1-6]|head|hr|html|li|ol|p|pre"
_BLOCK += "|section|table|tbody|td|th|thead|tr|ul"
_TAG = re.compile(rf"</?(?:({_INLINE})|{_BLOCK})(?:\s[^<>]*)?/?>|<!--.*?-->", re.I | re.S)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z]\w{1,31});", re.I)
# Not those that end lines: they are left to whoever cuts reports into sections.
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f]")
_LIST = re.compile(r"""[\[{]\s*['"].*['"]\s*[\]}]""", re.S)
# Without any of these there is nothing to look for, as in nearly all reports.
_SUSPECT = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\\\\<&[{ÃÂâï\ufffd]|_x")
_DECODED = re.compile("Ã[\x80-\xbf]|Â[\xa0-\xbf]|â€|\ufffd|ï»¿")


def read_report_cell(text: str, *, escapes: Escapes) -> tuple[str, set[Trace]]:
    """A report as it was meant, and what of other programs was in it.

    Escaped line ends, Excel's codes and HTML are undone, or kept; control characters are blanks, or
    what Windows-1252 has in their place. Empty where nothing is left.
    """
    found: set[Trace] = set()
    if not _SUSPECT.search(text):
        return text_in(text), found
    undo: dict[Trace, tuple[re.Pattern[str], Callable[[re.Match[str]], str]]] = {
        "escapes": (_ESCAPE, lambda match: _ESCAPED.get(match[1], "\n")),
        "excel": (_EXCEL_CODE, _of_excel),
        "html": (_TAG, lambda match: "" if match[1] else "\n"),
        "controls": (_CONTROL, _of_control),
    }
    for trace, (pattern, meant) in undo.items():
        if not (pattern.search(text) or (trace == "html" and _ENTITY.search(text))):
            continue
        found.add(trace)
        if trace == "controls" or escapes == "undo":
            text = pattern.sub(meant, text)
        if trace == "html" and escapes == "undo":
            text = _without_entities(text)
    found |= {"lists"} if _LIST.fullmatch(text.strip()) else set()
    found |= {"decoded"} if _DECODED.search(text) else set()
    return text_in(text), found


def told(trace: Trace, reports: int, first_line: int, *, escapes: Escapes) -> str:
    """What the build says of `reports` with this trace, of which the first is in `first_line`."""
    held, fixed = _TOLD[trace]
    done, remedy = fixed or (_UNDONE if escapes == "undo" else _KEPT)
    return f"{reports:,} x a report with {held}, {done} (first: line {first_line}): {remedy}"


def _of_excel(match: re.Match[str]) -> str:
    code = int(match[1], 16)
    return match[0] if 0xD800 <= code <= 0xDFFF else chr(code)


def _of_control(match: re.Match[str]) -> str:
    code = ord(match[0])
    return bytes([code]).decode("windows-1252", "replace") if code > 0x7F else " "


def _without_entities(text: str) -> str:
    # Twice for those that were escaped twice (&amp;lt;).
    for _ in range(2):
        text = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
    return text

"""A report's text made plain: one kind of line end and blank, and nothing that cannot be seen."""

from __future__ import annotations

import html
import re
import unicodedata
from functools import cache

_ESCAPE = re.compile(r"""(?<!\\)\\+(?:r\\+n|[nrt"'/]|u([0-9A-Fa-f]{4}))""")
# "w\r" or "y\n" may be somebody's short hand; these are line ends that a program wrote.
_SURELY_ESCAPED = re.compile(r"(?<!\\)\\+(?:r\\+n|n(?![a-z])|r(?=[A-Z]))|(?<![A-Za-z\\])\\+[nr]")
# Line ends as HL7 messages, RTF and addresses write them.
_FOREIGN_LINE_END = re.compile(r"\\\.br\\|(?:\\X0[AD]\\)+|\\(?:par|line)\b *|(?:%0D)?%0A")
_EXCEL_ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
_TAG = re.compile(
    r"</?(?:(li)|(br|p|div|ul|ol|tr|table|tbody|h[1-6]|hr|body|html|head|pre)"
    r"|(b|i|u|em|strong|span|font|su[bp]|td|th|a))(?:\s[^<>]*)?/?>"
    r"|</[a-z][\w-]*\s*>",
    re.IGNORECASE,
)
_CUT_WORD = re.compile("\u00ad[^\\S\n]*\n\\s*")
_LINE_END = re.compile(r"\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029\u00b6\u21b5\u23ce\u2424]")
_NOT_PLAIN = re.compile(r"[^\n\x20-\x7e]")


def plain_text(raw: str) -> str:
    """`raw` as it was meant before other programs had it.

    Line ends of any kind are "\\n": CR, those of Unicode, and those written out as a backslash
    with an n, as `<br>`, as Excel's `_x000D_`, in HL7 or RTF. Entities are their characters,
    other HTML tags and characters that take no room (marks of byte order or direction, soft
    hyphens) are gone, and blanks of any width, tabs and control characters are a blank.
    """
    text = raw
    if "\\" in text or "%0" in text:
        text = _FOREIGN_LINE_END.sub("\n", text)
    if "\\" in text and _SURELY_ESCAPED.search(text):
        text = _ESCAPE.sub(_unescaped, text)
    if "_x" in text:
        text = _EXCEL_ESCAPE.sub(lambda match: _character(match[1]), text)
    # Twice, for what was escaped twice.
    for _ in range(2):
        if "&" in text:
            text = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
    if "<" in text:
        text = _TAG.sub(_in_place_of_tag, text)
    text = _LINE_END.sub("\n", text)
    if not text.isascii():
        text = unicodedata.normalize("NFC", _CUT_WORD.sub("", text))
    return _NOT_PLAIN.sub(lambda match: _plain_character(match[0]), text)


def _unescaped(match: re.Match[str]) -> str:
    if match[1]:
        return _character(match[1])
    last = match[0][-1]
    return {"n": "\n", "r": "\n", "t": " "}.get(last, last)


def _character(code: str) -> str:
    # Half of a pair of codes is no character.
    number = int(code, 16)
    return " " if 0xD800 <= number < 0xE000 else chr(number)


def _in_place_of_tag(match: re.Match[str]) -> str:
    if match[1]:
        return "\n" if match[0].startswith("</") else "\n\u2022 "
    return "" if match[3] else "\n"


@cache
def _plain_character(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cf":
        return ""
    return " " if category in ("Cc", "Zs") else character

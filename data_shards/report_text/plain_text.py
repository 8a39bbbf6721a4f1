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
# What else HL7 escapes, and its mark between the lines of a text; "~5 mm" is about 5 mm.
_HL7_ESCAPE = re.compile(r"\\([FSTRE])\\(?![FSTRE]\\)")
_HL7_LINE_END = re.compile(r"(?<=[.?!:;])~+(?!\s*\d)")
_HL7_MARKS = {"F": "|", "S": "^", "T": "&", "R": "~", "E": "\\"}
# Two letters in one type (fi, fl), and letters as wide as Chinese ones; not their marks.
_AS_WIDE_OR_JOINED = re.compile("[\ufb00-\ufb06\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]")
_EXCEL_ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")
_ENTITY = re.compile(
    r"&(?:(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});"
    r"|(?:nbsp|lt|gt|amp|quot)(?![A-Za-z0-9;]))"
)
# A tag by its name, alone or with attributes that have values. "<a third, now >half" is none.
_VALUES = r"""(?:\s+[\w:.-]+\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>=]+))"""
_BARE = r"(?:\s+(?:nowrap|noshade|compact|hidden))*"
_BREAKS = (
    "br|p|div|hr|h[1-6]|ul|ol|dl|dt|dd|table|caption|thead|tbody|tfoot|tr|html|head|title|body|pre|"
    "center|section|article|header|footer|blockquote|address"
)
_INLINE = (
    "b|i|u|s|a|em|strong|small|big|span|font|su[bp]|tt|code|label|mark|del|ins|strike|abbr|img|wbr"
)
_TAG = re.compile(
    r"<!doctype\b[^<>]*>|<\?xml\b[^<>]*>"
    rf"|</?(?:(?P<item>li)|(?P<cell>td|th)|(?P<line>{_BREAKS})|(?P<inline>{_INLINE}|\w+:\w+))"
    rf"{_VALUES}*{_BARE}\s*/?>"
    rf"|<[a-z][\w-]*{_VALUES}+\s*/?>|</[a-z][\w-]*\s*>",
    re.IGNORECASE,
)
# One line end, which a program wrote twice.
_BREAK_AND_LINE_END = re.compile(r"<br\s*/?>[^\S\r\n]*(?:\r\n?|\n)", re.IGNORECASE)
# What is not shown, up to its end.
_HIDDEN = re.compile(r"<!--|<(style|script)\b", re.IGNORECASE)
# What programs that show pages write, and nobody else.
MARKUP = re.compile(f"{_HIDDEN.pattern}|{_TAG.pattern}|{_ENTITY.pattern}", re.IGNORECASE)
_CUT_WORD = re.compile("\u00ad[^\\S\n]*\n\\s*")
_LINE_END = re.compile(r"\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029\u00b6\u21b5\u23ce\u2424]")
_NOT_PLAIN = re.compile(r"[^\n\x20-\x7e]")


def plain_text(raw: str) -> str:
    """`raw` as it was meant before other programs had it.

    Line ends of any kind are "\\n": CR, those of Unicode, and those written out as a backslash
    with an n, as `<br>`, as Excel's `_x000D_`, in HL7 or RTF. Entities are their characters. Of
    HTML the text stays: tags of lines end these, cells have a blank between them, and tags within a
    line (`<a href="x">`) are gone. Letters in one type (fi) or of another width are plain ones.
    Characters that take no room (marks of byte order or direction, soft hyphens) are gone, and
    blanks of any width, tabs and control characters are a blank.
    """
    text = raw
    if "\\" in text or "%0" in text:
        text = _FOREIGN_LINE_END.sub("\n", text)
        text = _HL7_ESCAPE.sub(lambda match: _HL7_MARKS[match[1]], text)
    if "\\" in text and _SURELY_ESCAPED.search(text):
        text = _ESCAPE.sub(_unescaped, text)
    if "_x" in text:
        text = _EXCEL_ESCAPE.sub(lambda match: _character(match[1]), text)
    # Twice, for what was escaped twice.
    for _ in range(2):
        if "&" in text:
            text = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
    if "<" in text:
        text = _BREAK_AND_LINE_END.sub("<br>", _without_hidden(text))
        text = _TAG.sub(_in_place_of_tag, text)
    if "~" in text:
        text = _HL7_LINE_END.sub("\n", text)
    text = _LINE_END.sub("\n", text)
    if not text.isascii():
        text = unicodedata.normalize("NFC", _CUT_WORD.sub("", text))
        text = _AS_WIDE_OR_JOINED.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
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


def _without_hidden(text: str) -> str:
    """`text` without comments, styles and scripts; one without an end stays."""
    shown, place = [], 0
    while (start := _HIDDEN.search(text, place)) is not None:
        closing = f"</{start[1]}\\s*>" if start[1] else "-->"
        end = re.compile(closing, re.IGNORECASE).search(text, start.end())
        if end is None:
            break
        shown.append(text[place : start.start()])
        place = end.end()
    return "".join([*shown, text[place:]])


def _in_place_of_tag(match: re.Match[str]) -> str:
    if match["item"]:
        return "\n" if match[0].startswith("</") else "\n\u2022 "
    if match["cell"]:
        return " "
    return "" if match["inline"] else "\n"


@cache
def _plain_character(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cf":
        return ""
    return " " if category in ("Cc", "Zs") else character

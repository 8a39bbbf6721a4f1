"""Lists in a section: where an item begins, and which numbers and marks are only the list's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_ROMAN = ["i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii"]
# How lists count, by their first mark.
_SERIES: dict[str, Sequence[str]] = {
    "1": [str(number) for number in range(1, 100)],
    "a": [chr(code) for code in range(ord("a"), ord("z") + 1)],
    "A": [chr(code) for code in range(ord("A"), ord("Z") + 1)],
    "i": _ROMAN,
    "I": [numeral.upper() for numeral in _ROMAN],
}
# "2." and "2)": all that counts where only the number tells that an item begins.
_NUMBER = re.compile(r"\(?(?P<value>\d{1,2})[.)]\s*(?=[A-Za-z_(])")
# At the start of a line, in a list of two or more, also "2:", "#2", "[2]", "2 -", "b)", "(ii)".
_ANY_COUNT = re.compile(
    r"#[ ]?(?P<after>\d{1,2})[.:)]?\s+(?=\S)"
    r"|[(\[]?(?P<value>\d{1,2}|[A-Za-z]|[ivx]{2,4}|[IVX]{2,4})(?:[.)\]:]{1,2}|[ ]?-(?=\s))\s*(?=\S)"
)
_COUNT = re.compile(r"(?:^|(?<=\s))\(?\d{1,2}[.)]\s+", re.MULTILINE)
_WITHIN = re.compile(r"(?<=\s)\(?(?P<value>\d{1,2})[.)]\s+(?=[A-Z_(])")
# Marks that are hardly anything else, and those that are in a list of two or more, at the start,
# or after the end of a sentence.
_STRONG_BULLET = re.compile(
    "[*\u2022\u2023\u25aa\u25cf\u25e6\u25a0\u25a1\u25cb\uf0b7\uf0a7]\\s*|-\\s+(?=[A-Z])"
)
_BULLET = re.compile(
    "(?P<mark>[-\u2013\u2014\u00b7+>o\u2026\u2192\u27a2\u25ba\u2713])\\s+(?=[^\\W\\d]|\\d)"
    "|(?P<close>[-\u2013\u2014\u00b7+>\u2192\u27a2\u25ba\u2713])(?=[A-Za-z])"
)
_INLINE_BULLET = re.compile("\\s+[\u2022\u2023\u25aa\u25cf\u25e6\u25a0\uf0b7\uf0a7]\\s*(?=\\S)")
_ENDED = re.compile("[.?!:;\u2026\u3002\uff01\uff1f][\"')\\]\u2019\u201d]*$")
# What is no end of a statement: what follows, a number perhaps, belongs to it.
_GOES_ON = re.compile(
    r"(?:^|\W)(?:and|or|to|through|of|the|with|at|in|is|are|than|from|by|for|rib|ribs|level|levels"
    r"|grade|stage|type|class|day|number|no|image|series|segment|zone|about|[A-Z]\.?|\d[\d.]*|[-,&/#x])$"
)
_LABEL = re.compile(r"[A-Z][\w ,/&()'-]{0,40}:(?:\s|$)")
_STARTS_STATEMENT = re.compile(r"[\"(]?[A-Z][^\s.:]*\s+\S")
_END_WITHIN = re.compile(r"[.?!]\s+[A-Z]")


class Enumeration:
    """The lists of one section: how far the one that is being read has counted."""

    def __init__(self, section: str) -> None:
        marks = [_ANY_COUNT.match(line.strip()) for line in section.splitlines()]
        values = {match["value"] or match["after"] for match in marks if match is not None}
        self._listed = {first for first, series in _SERIES.items() if set(series[:2]) <= values}
        self._has_stops = _END_WITHIN.search(_COUNT.sub(" ", section)) is not None
        self._series: Sequence[str] = ()
        self._count = 0

    def at_line(self, line: str, before: str) -> int:
        """How long the list mark at the start of `line` is, 0 for none. `before` is the
        text of the item above, empty at the start of a paragraph.

        Lines are wrapped anywhere, so a number may be the last word of a sentence ("ribs 3
        through / 9. No effusion"): it is a list's if it counts on, or if it is the first and the
        second follows.
        """
        starts = not before or _ENDED.search(before) is not None
        match = _NUMBER.match(line)
        if match is not None and self._takes(match["value"], starts=starts, before=before):
            return match.end()
        match = _ANY_COUNT.match(line)
        if match is None:
            return 0
        value = match["value"] or match["after"]
        if value in self._listed:
            self._series, self._count = _SERIES[value], 1
            return match.end()
        if self._next == value and not _GOES_ON.search(before):
            self._count += 1
            return match.end()
        return 0

    def without_number(self, sentence: str) -> str:
        """`sentence` without the list's number at its start."""
        sentence = sentence.strip()
        match = _NUMBER.match(sentence)
        if match is not None and self._takes(match["value"], starts=True, before="."):
            return sentence[match.end() :]
        return sentence

    def cut_where_it_goes_on(self, item: str) -> Iterator[str]:
        """`item` cut at the next numbers of the list, in a section that has no full stops."""
        start = 0
        for match in () if self._has_stops else _WITHIN.finditer(item):
            before = item[start : match.start()].rstrip()
            if match["value"] == self._next and not _GOES_ON.search(before):
                self._count += 1
                yield before
                start = match.end()
        yield item[start:]

    @property
    def _next(self) -> str:
        return self._series[self._count] if 0 < self._count < len(self._series) else ""

    def _takes(self, value: str, *, starts: bool, before: str) -> bool:
        number, counts = int(value), self._series is _SERIES["1"]
        is_next = counts and value == self._next and not _GOES_ON.search(before)
        if number == 1:
            taken = starts or "1" in self._listed or not _GOES_ON.search(before)
        elif starts:
            # Lists are not always counted well: 1, 2, 2, 4. What opens a paragraph is no word of
            # a sentence before it.
            taken = not before or (counts and 0 <= number - self._count <= 3)
        else:
            taken = is_next
        if taken:
            self._series, self._count = _SERIES["1"], number
        return taken


def items_of(paragraph: str, lists: Enumeration) -> Iterator[str]:
    """The items of a paragraph's list, without their marks, or its lines where each of them is a
    statement; any other paragraph is one item.
    """
    lines = [
        part
        for line in paragraph.splitlines()
        for part in _INLINE_BULLET.sub("\n\u2022 ", line).split("\n")
    ]
    lines = [line.strip() for line in lines if line.strip()]
    bullets = [match and match[0].strip() for match in map(_BULLET.match, lines)]
    labels = sum(_LABEL.match(line) is not None for line in lines)
    # A line much shorter than a page is wide, with another statement below it, was not wrapped.
    statements = (
        len(lines) > 1
        and all(_STARTS_STATEMENT.match(line) and not _END_WITHIN.search(line) for line in lines)
        and not any(len(line) > 60 or _GOES_ON.search(line) for line in lines[:-1])
    )
    item: list[str] = []
    for line, bullet in zip(lines, bullets, strict=True):
        before = " ".join(item)
        starts = not before or _ENDED.search(before) is not None
        length = lists.at_line(line, before)
        strong = None if length else _STRONG_BULLET.match(line)
        if strong is not None:
            length = strong.end()
        elif (
            not length and bullet and (bullets.count(bullet) > 1 or (starts and bullet not in "+>"))
        ):
            match = _BULLET.match(line)
            length = 0 if match is None else match.end()
        label = _LABEL.match(line)
        opens = label is not None and (labels > 1 or line[: label.end() - 1].strip(": ").isupper())
        if length or opens or statements:
            yield before
            item = []
        item.append(line[length:])
    yield " ".join(item)

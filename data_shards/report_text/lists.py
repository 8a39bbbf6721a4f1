"""Lists in a section: where an item begins, and which numbers and marks are only the list's."""

from __future__ import annotations

import re
from collections import Counter
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
    r"|[(\[]?(?P<value>\d{1,2}|[A-Za-z]|[ivx]{2,4}|[IVX]{2,4})"
    r"(?:[.)\]:]{1,2}(?:\s+(?=\S)|(?=[^\W\d_]))|(?:/|[ ]?-)\s+(?=\S))"
)
# Within a line only what a list hardly shares with a sentence, and "2." where none has a full stop.
_CLEAR_COUNT = re.compile(
    r"(?<=\s)(?:#[ ]?(?P<after>\d{1,2})[.:)]?\s+(?=\S)|(?P<before>\d{1,2}):\s+(?=[A-Z_(])"
    r"|[(\[]?(?P<value>\d{1,2}|[a-z]|[ivx]{2,4})[)\]]\s*(?=[A-Za-z_(]))"
)
_DOTTED_COUNT = re.compile(r"(?<=\s)(?P<value>\d{1,2})\.\s+(?=[A-Z_(])")
_FIRST_COUNT = re.compile(r"(?:^|(?<=\s))\(?\d{1,2}[.)]\s+", re.MULTILINE)

_ROUND = "\u2022\u2023\u25aa\u25cf\u25e6\u25a0\uf0b7\uf0a7\u2460-\u2473"
_DASHES = "-\u2010-\u2015\u2212"
_ARROWS = ">\u2192\u27a2\u25ba\u2713"
# Marks that are hardly anything else, and those that are in a list of two or more, at the start,
# or after the end of a sentence.
_STRONG_BULLET = re.compile(rf"[*\u25a1\u25cb\u2610-\u2612{_ROUND}]\s*|\[[ xX]?\]\s+|-\s+(?=[A-Z])")
_BULLET = re.compile(
    rf"(?:[{_DASHES}{_ARROWS}\u00b7+o\u2026]\s+(?=[^\W_])|[{_DASHES}{_ARROWS}\u00b7+](?=[A-Za-z]))"
)
_ROUND_WITHIN = re.compile(rf"\s(?=[{_ROUND}])")
_DASH_WITHIN = re.compile(rf"\s(?=[{_DASHES}]\s[A-Z])")

_ENDED = re.compile("[.?!:;\u2026\u3002\uff01\uff1f][\"')\\]\u2019\u201d]*$")
# What is no end of a statement: what follows, a number perhaps, belongs to it.
_GOES_ON = re.compile(
    r"(?:^|\W)(?:and|or|to|through|of|the|with|at|in|is|are|than|from|by|for|rib|ribs|level|levels"
    r"|grade|stage|type|class|day|number|no|image|series|segment|zone|about|[A-Z]\.?|\d[\d.]*"
    r"|[-,&/#x])$"
)
_LABEL = re.compile(r"[A-Z][\w ,/&()'-]{0,40}:(?:\s|$)")
_STARTS_STATEMENT = re.compile(r"[\"(]?[A-Z][^\s.:]*\s+\S")
_END_WITHIN = re.compile(r"[.?!]\s+[A-Z]")


class Enumeration:
    """The lists of one section: how far the one that is being read has counted."""

    def __init__(self, section: str) -> None:
        at_lines = [_ANY_COUNT.match(line.strip()) for line in section.splitlines()]
        values = {_value(match) for match in at_lines if match is not None}
        values |= {_value(match) for match in _CLEAR_COUNT.finditer(section)}
        self._listed = {first for first, series in _SERIES.items() if set(series[:2]) <= values}
        self._has_stops = _END_WITHIN.search(_FIRST_COUNT.sub(" ", section)) is not None
        self._series: Sequence[str] = ()
        self._count = 0

    def at_line(self, line: str, before: str) -> int:
        """How long the list mark at the start of `line` is, 0 for none. `before` is the
        line above, empty at the start of a paragraph.

        Lines are wrapped anywhere, so a number may be the last word of a sentence ("ribs 3
        through / 9. No effusion"): it is a list's if it counts on, or if it is the first and the
        second follows.
        """
        match = _NUMBER.match(line)
        if match is not None and self._takes(match["value"], before):
            return match.end()
        match = _ANY_COUNT.match(line)
        if match is not None and _value(match) in self._listed:
            self._series, self._count = _SERIES[_value(match)], 1
            return match.end()
        return match.end() if match is not None and self._counts_on(match, before) else 0

    def without_number(self, sentence: str) -> str:
        """`sentence` without the list's number at its start."""
        sentence = sentence.strip()
        match = _NUMBER.match(sentence)
        if match is not None and self._takes(match["value"], before="."):
            return sentence[match.end() :]
        match = _ANY_COUNT.match(sentence)
        if match is not None and self._counts_on(match, before="."):
            return sentence[match.end() :]
        return sentence

    def cut_where_it_goes_on(self, item: str) -> Iterator[str]:
        """`item` cut at the next marks of the list within it."""
        start = 0
        marks = list(_CLEAR_COUNT.finditer(item))
        if not self._has_stops:
            marks += _DOTTED_COUNT.finditer(item)
        for match in sorted(marks, key=lambda each: each.start()):
            before = item[max(start, match.start() - 20) : match.start()].rstrip()
            if self._counts_on(match, before):
                yield item[start : match.start()].rstrip()
                start = match.end()
        yield item[start:]

    def _expects(self, value: str) -> bool:
        # Lists are not always counted well: 1, 2, 2, 4.
        is_counting = self._series is _SERIES["1"]
        return value == "1" or (is_counting and 0 <= int(value) - self._count <= 3)

    def _counts_on(self, match: re.Match[str], before: str) -> bool:
        following = self._series[self._count] if 0 < self._count < len(self._series) else None
        if _value(match) != following or _GOES_ON.search(before):
            return False
        self._count += 1
        return True

    def _takes(self, value: str, before: str) -> bool:
        """Whether "2." or "2)" is a list's after `before`, which then has counted so far."""
        if not before:
            # What opens a paragraph is no word of a sentence before it.
            taken = True
        elif _ENDED.search(before):
            taken = self._expects(value)
        elif value == "1":
            taken = "1" in self._listed or not _GOES_ON.search(before)
        else:
            is_next = self._expects(value) and int(value) == self._count + 1
            taken = is_next and not _GOES_ON.search(before)
        if taken:
            self._series, self._count = _SERIES["1"], int(value)
        return taken


def items_of(paragraph: str, lists: Enumeration) -> Iterator[str]:
    """The items of a paragraph's list, without their marks, or its lines where each of them is a
    statement; any other paragraph is one item.
    """
    lines = [
        part for line in paragraph.splitlines() for part in _cut_at_bullets(" ".join(line.split()))
    ]
    marks = [match[0].strip() if (match := _BULLET.match(line)) else "" for line in lines]
    times = Counter(marks)
    labels = sum(_LABEL.match(line) is not None for line in lines)
    are_statements = _are_statements(lines)
    item: list[str] = []
    for line, mark in zip(lines, marks, strict=True):
        before = item[-1] if item else ""
        length = lists.at_line(line, before) or _length_of_bullet(
            line, before, is_listed=bool(mark) and times[mark] > 1
        )
        label = _LABEL.match(line)
        is_label = label is not None and (labels > 1 or label[0].isupper())
        if length or is_label or are_statements:
            yield " ".join(item)
            item = []
        item.append(line[length:])
    yield " ".join(item)


def _value(match: re.Match[str]) -> str:
    return next(group for group in match.groups() if group)


def _cut_at_bullets(line: str) -> list[str]:
    if re.match(rf"[{_DASHES}]\s", line):
        return _DASH_WITHIN.split(line)
    return _ROUND_WITHIN.split(line) if line else []


def _length_of_bullet(line: str, before: str, *, is_listed: bool) -> int:
    strong = _STRONG_BULLET.match(line)
    if strong is not None:
        return strong.end()
    weak = _BULLET.match(line)
    starts = not before or _ENDED.search(before) is not None
    # "> 5 mm" and "+ 2" are more often said than listed.
    if weak is None or not (is_listed or (starts and weak[0].strip() not in "+>")):
        return 0
    return weak.end()


def _are_statements(lines: Sequence[str]) -> bool:
    """Whether each line is a statement of its own.

    A line much shorter than a page is wide, with another statement below it, was not wrapped.
    """
    return (
        len(lines) > 1
        and all(_STARTS_STATEMENT.match(line) and not _END_WITHIN.search(line) for line in lines)
        and not any(len(line) > 60 or _GOES_ON.search(line) for line in lines[:-1])
    )

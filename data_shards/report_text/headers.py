"""Headers in a report of any layout, in any usual spelling, at a line's start or within it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from data_shards.report_text.section_names import (
    MAIN_SECTIONS,
    names_views,
    plain_section,
    qualified_section,
)

# Marks before a header, and the number of one in a list of headers; marks behind it.
_OPEN = r"[\W_]*(?:(?:\d{1,2}|[A-Z]|[IVX]{2,4})[.)][ ]*[*_]*)?"
_CLOSE = "[ *_#\\])>}=~\u3011\"'\u201d]*"
_COLONS = ":\uff1a\ufe55\u2236"
_COLON = re.compile(
    rf"{_OPEN}(?P<name>[^\W\d_][^{_COLONS}]{{0,60}}?){_CLOSE}[{_COLONS}]+[*_\])>}}]*"
)
_MARKED = re.compile(
    r"[ ]*[*_#\[<({\u3010=~]+[ ]*(?P<name>[^\W\d_][^*_#\])>}\u3011=~]{0,40})[*_#\])>}\u3011=~]+"
)
_DASH = re.compile(
    rf"{_OPEN}(?P<name>[^\W\d_][^{_COLONS}]{{0,40}}?)"
    "(?:[ ]+[-\u2013\u2014\u2212]+>?[ ]*|-+>?[ ]+|[\u2013\u2014]+|-+(?=[A-Z][a-z]))"
)
_ALONE = re.compile(rf"{_OPEN}(?P<name>[^\W\d_].{{0,40}}?){_CLOSE}$")
# What else stands in place of a colon before a statement: Findings; The heart ...
_STATEMENT = r"[\"'(*_\[\u2022-]{0,2}[A-Z_"
_INSTEAD = (
    rf"[ ]*(?:(?:[;|\u2192\u21d2\u00bb]+|\.+|\u2026)[ ]+(?={_STATEMENT}\d])"
    # A result > 5 mm is a sentence's.
    rf"|[=>]+[ ]+(?={_STATEMENT}]))"
)
_OTHER_MARK = re.compile(rf"[ |>]*(?P<name>[^\W\d_][^{_COLONS}.;=|>]{{1,40}}?){_INSTEAD}")
_OTHER_MARK_WITHIN = re.compile(rf"(?<=[.?!|])[ ]+(?P<name>[A-Z][A-Za-z &/]{{2,30}}?){_INSTEAD}")
# FINDINGS The heart ..., FINDINGS. The heart ...
_RUN_ON = re.compile(
    r"[ |>]*(?P<name>[A-Z][A-Z &/]*[A-Z])"
    r"(?:[ ]*[.,;=|>]+[ ]*(?=\W?[A-Z]?[a-z]|[\d_*-])|[ ]+(?=[A-Z][a-z]|[\d_]))"
)
_SIGNED = r"(?:electronically|digitally|final(?:ly|ized)?|e-?)[ -]*"
_BY = r"(?: (?:and|&) \w+| off| electronically)* (?:by\b|(?:on|at):? *\d)"
_SIGNATURE = re.compile(
    rf"[\W_]*(?:(?:this|the) (?:report|study|exam|examination) (?:was|is|has been) )?"
    rf"(?:{_SIGNED})?(?:signed|dictated|reported|reviewed|transcribed|verified|approved"
    rf"|authenticated|finalized|interpreted){_BY}.{{0,120}}"
    r"|[\W_]*I,? (?:[\w.]+,? ){0,4}(?:personally|independently) (?:\w+ ){0,2}reviewed\b"
    r"[^.\n]{0,200}\.?"
    rf"|[\W_]*{_SIGNED}signed[ ]*[:\d].{{0,120}}"
    r"|[\W_]*(?:attending|radiologist|resident|reader|transcriptionist|signed|date|time)"
    r"(?: (?:physician|radiologist|signed|dictated|transcribed|of \w+))?[ ]*:"
    # A name, a date or a time; small letters go on with a sentence.
    r"[ ]*+(?-i:(?!(?!today\b)[a-z]).{0,60})",
    re.IGNORECASE,
)
_SIGNATURE_WITHIN = re.compile(
    rf"(?<=[.?!;|)])[ ]+(?=[A-Z])(?i:(?:{_SIGNED})?(?:signed|dictated|transcribed){_BY})"
)
# "ADDENDUM" on a line of its own is a title: what follows goes on with the section above.
_WITH_COLON_ONLY = ("addendum", "notification", "recommendations", "wet read")
_CAPITALS = re.compile(r"[A-Z][A-Z0-9 ()/,.'\u2019&#+-]+")
# What a header within a line may follow, and what follows it.
_END_OF_PHRASE = re.compile(
    '[.?!;,](?=[\\W_A-Z])|[|^~)\\]"\u201d*\u2026\u3002\uff01\uff1f\uff1b\uff0c]'
)
_LONGEST = 80
_WITHIN = re.compile(rf"[{_COLONS}]+[*_\])>}}]*|(?<! )[ ]+-+[ ]+")


@dataclass(frozen=True, slots=True)
class Header:
    """A header, its marks included, from `start` to `end`.

    `views` says how the images were taken, and so may open findings; `unknown` is no section's;
    a `signature` has no text but its own.
    """

    start: int
    end: int
    name: str
    kind: Literal["section", "views", "unknown", "signature"] = "section"


def find_headers(text: str, more: Mapping[str, str]) -> Iterator[Header]:
    """The headers of a plain text in order; `more` are known ones of the user's own."""
    in_capitals = text.isupper()
    start, previous = 0, ""
    for line in text.splitlines(keepends=True):
        stripped = line.rstrip()
        if stripped.strip() in MAIN_SECTIONS and not previous[-1:].isalnum():
            # In small letters a word alone on its line may be the last of a sentence.
            yield Header(start, start + len(stripped), stripped.strip())
        else:
            # A line that goes on with the one above may start with the last word of a sentence.
            goes_on = previous[-1:].isalnum() or previous.endswith(",")
            found = _headers_of_line(stripped, more, in_capitals=in_capitals, goes_on=goes_on)
            for header in found:
                yield replace(header, start=start + header.start, end=start + header.end)
        start, previous = start + len(line), stripped


def _headers_of_line(
    line: str, more: Mapping[str, str], *, in_capitals: bool, goes_on: bool
) -> Iterator[Header]:
    is_signature = _SIGNATURE.fullmatch(line) and not line.lstrip()[:1].islower()
    first = None
    if not is_signature:
        first = _header_at_start(line, more, in_capitals=in_capitals, goes_on=goes_on)
    start = first.end if first else 0
    within = [
        *_headers_within(line, start, more, in_capitals=in_capitals),
        *_by_other_marks(line, start, more),
    ]
    within.sort(key=lambda header: header.start)
    end = within[0].start if within else len(line)
    if is_signature:
        yield Header(0, end, "signature", "signature")
    elif first is not None:
        yield first
    yield from within
    signature = _SIGNATURE_WITHIN.search(line, within[-1].end if within else 0)
    if signature is not None:
        yield Header(signature.start(), len(line), "signature", "signature")


def _header_at_start(
    line: str, more: Mapping[str, str], *, in_capitals: bool, goes_on: bool
) -> Header | None:
    colon = _COLON.match(line)
    if colon is not None:
        header = _before_colon(colon, more)
        if header is not None:
            return header
    patterns = [
        *(_MARKED, _DASH, _ALONE),
        *([] if in_capitals else [_RUN_ON]),
        *([] if goes_on else [_OTHER_MARK]),
    ]
    for pattern in patterns:
        match = pattern.match(line)
        if match is None:
            continue
        name = plain_section(match["name"], more)
        if match["name"].islower() and not (
            # <findings>Heart size ..., # findings; but not: _findings_ are stable
            name in MAIN_SECTIONS
            and (pattern is _MARKED or (pattern is _ALONE and not line.lstrip()[0].isalpha()))
            and not line[match.end() :].lstrip()[:1].islower()
        ):
            continue
        if name in _WITH_COLON_ONLY and pattern is not _MARKED:
            name = None
        if (
            name is None
            and pattern is _ALONE
            and match["name"].endswith((" Impression", " IMPRESSION"))
        ):
            name = qualified_section(match["name"])
        if name is not None:
            return Header(0, match.end(), name)
    return None


def _before_colon(match: re.Match[str], more: Mapping[str, str]) -> Header | None:
    words = match["name"]
    following = match.string[match.end() : match.end() + 1]
    if words[-1].isdigit() and following.isdigit():
        # Findings 10:30
        return None
    name = plain_section(words, more)
    if name is None and not re.search(r"[.?!;] ", words):
        name = qualified_section(words)
    if name is not None:
        return Header(0, match.end(), name)
    if not _CAPITALS.fullmatch(words) or re.search(r"[.?!;] ", words):
        return None
    return Header(0, match.end(), words.lower(), "views" if names_views(words) else "unknown")


def _by_other_marks(line: str, start: int, more: Mapping[str, str]) -> Iterator[Header]:
    for match in _OTHER_MARK_WITHIN.finditer(line, start):
        name = plain_section(match["name"], more)
        if name in MAIN_SECTIONS:
            yield Header(match.start("name"), match.end(), name)


def _headers_within(
    line: str, start: int, more: Mapping[str, str], *, in_capitals: bool
) -> Iterator[Header]:
    for mark in _WITHIN.finditer(line, start):
        phrase = line[max(start, mark.start() - _LONGEST) : mark.start()]
        ends = [match.end() for match in _END_OF_PHRASE.finditer(phrase.rstrip(" *_)]>\"'"))]
        after = phrase[ends[-1] - 1] if ends else ":" if start and len(phrase) < _LONGEST else ""
        phrase = phrase[ends[-1] if ends else 0 :]
        if mark[0].startswith(" ") and not (phrase.isupper() and after and after in ".?!;|"):
            continue
        header = _name_at_end(phrase, more, after=after, in_capitals=in_capitals)
        if header is not None:
            name, length = header
            yield Header(mark.start() - length, mark.end(), name)
            start = mark.end()


def _name_at_end(
    phrase: str, more: Mapping[str, str], *, after: str, in_capitals: bool
) -> tuple[str, int] | None:
    """The section that `phrase`, or its last words in capitals, head, and how long these are.

    `after` is the mark before the phrase, empty at the start of a line.
    """
    if after and phrase.strip():
        name = plain_section(phrase, more)
        if name is not None:
            return name, len(phrase)
    if not after and phrase.isupper():
        # All of what the line starts with is one header, if it is any.
        return None
    words = list(re.finditer(r"\S+", phrase))
    for word in words[1:]:
        header = phrase[word.start() :]
        name = plain_section(header, more) if header.isupper() else None
        if name in MAIN_SECTIONS or (name is not None and not in_capitals):
            return name, len(header)
    # "Final impression"; capitals before a header in capitals may be the end of a sentence.
    if after and after in ".?!" and not phrase.isupper():
        name = qualified_section(phrase.strip())
        return (name, len(phrase)) if name in MAIN_SECTIONS else None
    return None

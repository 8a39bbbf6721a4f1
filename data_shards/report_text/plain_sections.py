"""Sections of a report of any layout: headers in any usual spelling, at a line's start or in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from data_shards.records.policies import FREE_TEXT
from data_shards.report_text.section_names import (
    MAIN_SECTIONS,
    is_of_the_record,
    names_views,
    plain_section,
    qualified_section,
)

# Marks before a header, and the number of one in a list of headers; marks behind it.
_OPEN = r"[\W_]*(?:(?:\d{1,2}|[A-Z]|[IVX]{2,4})[.)][ ]*[*_]*)?"
_CLOSE = r"[ *_#\])>}=~\u3011]*"
_COLONS = ":\uff1a\ufe55\u2236"
_COLON = re.compile(
    rf"{_OPEN}(?P<name>[^\W\d_][^{_COLONS}]{{0,60}}?){_CLOSE}[{_COLONS}]+[*_\])>}}]*"
)
_COLON_WITHIN = re.compile(rf"[{_COLONS}]+[*_\])>}}]*")
_MARKED = re.compile(
    r"[ ]*[*_#\[<({\u3010=~]+[ ]*(?P<name>[^\W\d_][^*_#\])>}\u3011=~]{0,40})[*_#\])>}\u3011=~]+"
)
_DASH = re.compile(
    rf"{_OPEN}(?P<name>[^\W\d_][^{_COLONS}]{{0,40}}?)"
    "(?:[ ]+[-\u2013\u2014]+[ ]*|-+[ ]+|[\u2013\u2014]+|-+(?=[A-Z][a-z]))"
)
_ALONE = re.compile(rf"{_OPEN}(?P<name>[^\W\d_].{{0,40}}?){_CLOSE}$")
# FINDINGS The heart ..., FINDINGS. The heart ...
_RUN_ON = re.compile(
    r"[ ]*(?P<name>[A-Z][A-Z &/]*[A-Z])"
    r"(?:[ ]*[.;=|>]+[ ]*(?=\W?[A-Z]?[a-z]|[\d_*-])|[ ]+(?=[A-Z][a-z]|[\d_]))"
)
_SIGNATURE = re.compile(
    r"[\W_]*(?:(?:electronically|digitally|final(?:ly|ized)?|e-?)[ -]*)?"
    r"(?:signed|dictated|reported|transcribed|verified|approved|authenticated|finalized|interpreted)"
    r"(?: (?:and|&) \w+| off| electronically)* (?:by|on|at)\b",
    re.IGNORECASE,
)
_CAPITALS = re.compile(r"[A-Z][A-Z0-9 ()/,.'\u2019&#+-]+")
_FEW_CAPITALS = re.compile(r"\W*[A-Z]{2,}(?:[ '\u2019&/-]+[A-Z]+){1,3}\W*")
# What a header within a line may follow.
_END_OF_PHRASE = re.compile(
    '[.?!;,](?=[\\s*_(\\[])|[|)\\]"\u201d*\u2026\u3002\uff01\uff1f\uff1b\uff0c]'
)
_FIRST_LINE = re.compile(
    r"\n[ \t]*\n|(?<=[.?!)_\u3002])[ \t]*\n|(?:\A|(?<=\n))[^\n]{0,60}\n(?=[ \t]*[A-Z][a-z])"
)
_FIRST_SENTENCE = re.compile(r"(?<=\w\w[.?!])\s+(?=[A-Z])|(?<=\u3002)")
_FULL_STOP = re.compile(r"[^\W\d_]{3}(?:\.(?:\s|$)|\u3002)")


@dataclass(frozen=True, slots=True)
class _Header:
    """A header, its marks included, from `start` to `end`.

    `views` says how the images were taken, and so may open findings; `unknown` is no section's.
    """

    start: int
    end: int
    name: str
    kind: Literal["section", "views", "unknown", "signature"] = "section"


@dataclass(frozen=True, slots=True)
class _Piece:
    """Text from `start` (with its header) to `end`; its content begins at `content`."""

    name: str
    known: bool
    start: int
    content: int
    end: int


def split_plain_sections(text: str, more_names: Mapping[str, str]) -> dict[str, str]:
    """Section texts by normalised name, in order of first appearance; text of one name is joined.

    A known header counts in any case with a colon, a dash, marks of emphasis or a line of its own
    at the start of a line, and with a colon after the end of a sentence. Any other line that
    starts with capitals and a colon is a section of its own, but within findings and impression
    it belongs to these. Lines of signature are a section. What precedes the first header is
    `preamble`. Where an impression is headed, but no findings, text under no known header is the
    findings (a preamble only if it has a full stop: it may be a title). Without either it is
    `FREE_TEXT`, with what follows the first paragraph or the first full line under the last
    header, in a text of one line the first sentence.
    """
    headers = list(_headers(text, more_names))
    if not headers:
        return {FREE_TEXT: text.strip()}
    pieces = _pieces(text, headers)
    names = {piece.name for piece in pieces}
    if "impression" in names and "findings" not in names:
        pieces = [_as_findings(piece, text) for piece in pieces]
    if names.isdisjoint(MAIN_SECTIONS):
        pieces = _with_free_text(text, pieces)
    sections: dict[str, str] = {}
    ends: dict[str, int] = {}
    for piece in pieces:
        # Neighbours stay as they were: a line end between them may be one of wrapped text.
        gap = "" if ends.get(piece.name, piece.content) == piece.content else "\n\n"
        part = text[piece.content : piece.end]
        sections[piece.name] = f"{sections.get(piece.name, '')}{gap}{part}"
        ends[piece.name] = piece.end
    return {name: section.strip() for name, section in sections.items()}


def _pieces(text: str, headers: Sequence[_Header]) -> list[_Piece]:
    """What each header opens; without empty findings and impressions."""
    pieces = [_Piece("preamble", False, 0, 0, headers[0].start)]
    ends = [*(header.start for header in headers[1:]), len(text)]
    for header, end in zip(headers, ends, strict=True):
        within = pieces[-1]
        is_subhead = header.kind == "views" or (
            header.kind == "unknown" and not is_of_the_record(header.name)
        )
        if is_subhead and within.name in MAIN_SECTIONS:
            pieces[-1] = replace(within, end=end)
        elif header.kind == "signature":
            pieces.append(_Piece("signature", True, header.start, header.start, header.end))
            pieces.append(replace(within, start=header.end, content=header.end, end=end))
        else:
            known = header.kind != "unknown" or is_of_the_record(header.name)
            name = "findings" if header.kind == "views" else header.name
            pieces.append(_Piece(name, known, header.start, header.end, end))
    return [
        piece
        for piece in pieces
        if piece.name not in MAIN_SECTIONS or text[piece.content : piece.end].strip()
    ]


def _as_findings(piece: _Piece, text: str) -> _Piece:
    if piece.known or (
        piece.name == "preamble" and not _FULL_STOP.search(text, piece.start, piece.end)
    ):
        return piece
    return replace(piece, name="findings", content=piece.start)


def _with_free_text(text: str, pieces: Sequence[_Piece]) -> list[_Piece]:
    free = [
        piece if piece.known else replace(piece, name=FREE_TEXT, content=piece.start)
        for piece in pieces
    ]
    last = free[-1]
    if last.known and last.name != "signature":
        content = text[last.content : last.end].lstrip()
        first = (_FIRST_LINE if "\n" in text.strip() else _FIRST_SENTENCE).search(content)
        if first is not None:
            middle = last.end - len(content) + first.end()
            free[-1] = replace(last, end=middle)
            free.append(_Piece(FREE_TEXT, False, middle, middle, last.end))
    return [piece for piece in free if piece.known or text[piece.content : piece.end].strip()]


def _headers(text: str, more: Mapping[str, str]) -> Iterator[_Header]:
    in_capitals = text.isupper()
    start = 0
    for line in text.splitlines(keepends=True):
        at_start = _header_of_line(line.rstrip(), more, in_capitals=in_capitals)
        rest = 0
        if at_start is not None:
            rest = at_start.end
            yield replace(at_start, start=start, end=start + rest)
        for header in _headers_within(line, rest, more, in_capitals=in_capitals):
            yield replace(header, start=start + header.start, end=start + header.end)
        start += len(line)


def _header_of_line(line: str, more: Mapping[str, str], *, in_capitals: bool) -> _Header | None:
    if _SIGNATURE.match(line) and not line.lstrip()[:1].islower():
        return _Header(0, len(line), "signature", "signature")
    colon = _COLON.match(line)
    if colon is not None:
        header = _before_colon(colon, more)
        if header is not None:
            return header
    for pattern in (_MARKED, _DASH, _ALONE, None if in_capitals else _RUN_ON):
        match = None if pattern is None else pattern.match(line)
        if match is None or match["name"].islower():
            continue
        name = plain_section(match["name"], more)
        if name == "recommendations" and pattern is not _MARKED:
            name = None
        if name is None and pattern is _ALONE and match["name"].lower().endswith(" impression"):
            name = qualified_section(match["name"])
        if name is not None:
            return _Header(0, match.end(), name)
    return None


def _before_colon(match: re.Match[str], more: Mapping[str, str]) -> _Header | None:
    words = match["name"]
    name = plain_section(words, more)
    if name is not None:
        return _Header(0, match.end(), name)
    if re.search(r"[.?!;] ", words):
        return None
    name = qualified_section(words)
    if name is not None:
        return _Header(0, match.end(), name)
    following = match.string[match.end() : match.end() + 1]
    if not _CAPITALS.fullmatch(words) or (words[-1].isdigit() and following.isdigit()):
        return None
    return _Header(0, match.end(), words.lower(), "views" if names_views(words) else "unknown")


def _headers_within(
    line: str, start: int, more: Mapping[str, str], *, in_capitals: bool
) -> Iterator[_Header]:
    for colon in _COLON_WITHIN.finditer(line, start):
        phrase = line[start : colon.start()]
        ends = [match.end() for match in _END_OF_PHRASE.finditer(phrase.rstrip(" *_)]>"))]
        mark = phrase[ends[-1] - 1] if ends else ":" if start else ""
        header = _name_at_end(
            phrase[ends[-1] if ends else 0 :], more, after=mark, in_capitals=in_capitals
        )
        if header is not None:
            name, length = header
            yield _Header(colon.start() - length, colon.end(), name)
            start = colon.end()


def _name_at_end(
    phrase: str, more: Mapping[str, str], *, after: str, in_capitals: bool
) -> tuple[str, int] | None:
    """The section that `phrase`, or its last words in capitals, head, and how long these are.

    `after` is the mark before the phrase, empty at the start of a line.
    """
    if after and phrase.strip():
        name = plain_section(phrase, more)
        if name is None and after in ".?!" and _FEW_CAPITALS.fullmatch(phrase):
            name = qualified_section(phrase.strip())
        if name is not None:
            return name, len(phrase)
    words = list(re.finditer(r"\S+", phrase))
    for word in words[1:]:
        header = phrase[word.start() :]
        name = plain_section(header, more) if header.isupper() else None
        if name in MAIN_SECTIONS or (name is not None and not in_capitals):
            return name, len(header)
    return None

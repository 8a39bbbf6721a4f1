"""Sections of a report of any layout, cut at its headers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from data_shards.records.policies import FREE_TEXT
from data_shards.report_text.headers import Header, find_headers
from data_shards.report_text.section_names import MAIN_SECTIONS, is_of_the_record

_FIRST_LINE = re.compile(
    r"\n[ \t]*\n|(?<=[.?!)_\u3002])[ \t]*\n|(?:\A|(?<=\n))[^\n]{0,60}\n(?=[ \t]*[A-Z][a-z])"
)
_FIRST_SENTENCE = re.compile(r"(?<=\w\w[.?!])\s+(?=[A-Z])|(?<=\u3002)")
_BLANK_LINE = re.compile(r"\n[ \t]*\n\s*")
# What a report begins with; an addendum or advice may have paragraphs of its own.
_BEFORE_FINDINGS = ("examination", "indication", "history", "technique", "comparison")
_FULL_STOP = re.compile(r"[^\W\d_]{3}(?:\.(?:\s|$)|\u3002)")


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
    findings (a preamble only if it has a full stop: it may be a title), or else the paragraphs
    after the first one below what precedes the impression. Without either it is
    `FREE_TEXT`, with what follows the first paragraph or the first full line under the last
    header, in a text of one line the first sentence.
    """
    headers = list(find_headers(text, more_names))
    if not headers:
        return {FREE_TEXT: text.strip()}
    pieces = _pieces(text, headers)
    names = {piece.name for piece in pieces}
    if "impression" in names and "findings" not in names:
        pieces = [_as_findings(piece, text) for piece in pieces]
        if not any(piece.name == "findings" for piece in pieces):
            pieces = _with_findings(text, pieces)
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
    return {name: section.strip().removesuffix(" |") for name, section in sections.items()}


def _pieces(text: str, headers: Sequence[Header]) -> list[_Piece]:
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


def _with_findings(text: str, pieces: Sequence[_Piece]) -> list[_Piece]:
    """`pieces`, where the one before the impression may have paragraphs that are the findings."""
    at = [piece.name for piece in pieces].index("impression") - 1
    if at < 0 or pieces[at].name not in _BEFORE_FINDINGS:
        return list(pieces)
    lead = pieces[at]
    blank = _BLANK_LINE.search(text, lead.content + _indent(text, lead), lead.end)
    if blank is None or not _FULL_STOP.search(text, blank.end(), lead.end):
        return list(pieces)
    findings = _Piece("findings", False, blank.end(), blank.end(), lead.end)
    return [*pieces[:at], replace(lead, end=blank.start()), findings, *pieces[at + 1 :]]


def _indent(text: str, piece: _Piece) -> int:
    """How many blanks and line ends are before the first word below a header."""
    content = text[piece.content : piece.end]
    return len(content) - len(content.lstrip())


def _with_free_text(text: str, pieces: Sequence[_Piece]) -> list[_Piece]:
    free = [
        piece if piece.known else replace(piece, name=FREE_TEXT, content=piece.start)
        for piece in pieces
    ]
    free = [piece for piece in free if text[piece.content : piece.end].strip()]
    last = max((n for n, piece in enumerate(free) if piece.name != "signature"), default=None)
    if last is not None and free[last].known:
        content = text[free[last].content : free[last].end].lstrip()
        first = (_FIRST_LINE if "\n" in text.strip() else _FIRST_SENTENCE).search(content)
        if first is not None:
            end = free[last].end
            middle = end - len(content) + first.end()
            free[last] = replace(free[last], end=middle)
            free.insert(last + 1, _Piece(FREE_TEXT, False, middle, middle, end))
    return free

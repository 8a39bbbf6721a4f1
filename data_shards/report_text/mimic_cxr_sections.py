"""Sections of a report in MIMIC-CXR's layout, by the rules of the parser published with it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from data_shards.report_text.section_names import (
    MAIN_SECTIONS,
    is_of_the_record,
    known_section,
    section_name,
)

# Reports of MIMIC-CXR indent every line by one space and keep it on blank lines.
_HEADER = re.compile(r"\n ([A-Z ()/,-]+):\s")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")


def split_sections(text: str) -> dict[str, str]:
    """Section texts by normalised name, in order of first appearance.

    A header is a line that starts with one space, capitals (also blanks and `()/,-`) and a
    colon. What precedes the first header is `preamble`; without any header all is `full report`.
    Of several sections of one name the last counts, once empty findings and impressions are
    removed. Without findings and impression, what follows the first blank line of the last
    section is `last_paragraph`.

    Two things the published parser lets fall are kept: a header that is no known section
    ("LUNGS") and stands in findings or impression belongs to them, and sections that a later one
    of their name replaces are "earlier findings", and so on, which no text policy takes.
    """
    pieces = [
        (name, section)
        for name, section in _cut(text)
        if section.strip() or name not in MAIN_SECTIONS
    ]
    if not any(name in MAIN_SECTIONS for name, _ in pieces):
        name, section = pieces[-1]
        blank_line = _BLANK_LINE.search(section)
        if blank_line is not None:
            pieces[-1] = (name, section[: blank_line.start()])
            pieces.append(("last_paragraph", section[blank_line.end() :]))
    return _the_last_of_each(pieces)


def _cut(text: str) -> list[tuple[str, str]]:
    match = _HEADER.search(text)
    if match is None:
        return [("full report", text)]
    pieces = [("preamble", text[: match.start(1)])]
    while match is not None:
        name, start = section_name(match[1]), match.end()
        following = _next_header(text, start)
        while following is not None and name in MAIN_SECTIONS and _is_subhead(following[1]):
            following = _next_header(text, following.end())
        end = len(text) if following is None else following.start()
        pieces.append((name, text[start:end]))
        match = following
    return pieces


def _next_header(text: str, start: int) -> re.Match[str] | None:
    # A header needs a line of its own start: the rest of this header's line is content, even
    # when it looks like another header.
    line_end = text.find("\n", start)
    return _HEADER.search(text, line_end if line_end >= 0 else len(text))


def _is_subhead(header: str) -> bool:
    return known_section(header) is None and not is_of_the_record(header)


def _the_last_of_each(pieces: Iterable[tuple[str, str]]) -> dict[str, str]:
    sections: dict[str, str] = {}
    earlier: dict[str, str] = {}
    for name, section in pieces:
        if sections.get(name):
            replaced = earlier.get(f"earlier {name}", "")
            earlier[f"earlier {name}"] = f"{replaced}\n\n{sections[name]}".lstrip()
        sections[name] = section.strip()
    return sections | earlier

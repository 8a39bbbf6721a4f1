"""A `Report` made of raw text, cut at its headers, or of sections that a table separates."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from data_shards.records.policies import FREE_TEXT
from data_shards.records.study import Report
from data_shards.report_text.sentences import split_sentences

# Reports of MIMIC-CXR indent every line by one space and keep it on blank lines.
_HEADER = re.compile(r"\n ([A-Z ()/,-]+):\s")
_HEADER_OF_PLAIN_TEXT = re.compile(r"(?:\A|\n)[ \t]*([A-Z][A-Z ()/,-]*):\s")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")

MAIN_SECTIONS = ("findings", "impression")

# Names of headers: spellings (in the table beside this file) and rules are those of the parser
# published with the data set (MIT-LCP/mimic-cxr, `txt/section_parser.py`), so that our sections are
# those of the official sectioned table.

# A header that holds one of these anywhere is that section; the first match wins.
_NAMED_IN_HEADERS = ("impression", "findings", "history", "comparison", "addendum")

# Headers that only name the views ("PORTABLE AP CHEST") open the description of the images.
_VIEW_PHRASE = re.compile(
    r"chest|portable|(?:pa|ap) and lateral|lateral and (?:pa|ap)|frontal and|two views|one view"
    r"|(?:frontal|pa|ap|lateral) view|bone window|frontal (?:semi-)?upright|ribs|pa and lat"
)

_SPELLINGS: dict[str, list[str]] = yaml.safe_load(
    Path(__file__).with_name("section_names.yaml").read_text()
)
_NAME_OF_SPELLING = {
    spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings
}
# These are names already, and must not reach the rules on parts of a header.
_NAMES = frozenset(_SPELLINGS) | {"preamble", "technique", "notification", "date", "comment"}


def parse_report(raw: str) -> Report:
    """The sections and sentences of a report in MIMIC-CXR's layout."""
    return report_of_sections(raw, split_sections(raw))


def parse_plain_report(raw: str) -> Report:
    """The sections and sentences of a text of any layout.

    Headers count at the start of any line. A text with neither findings nor impression
    becomes one section `FREE_TEXT`, which every text policy falls back to.
    """
    sections = split_sections(raw, indented=False)
    if not any(name in sections for name in MAIN_SECTIONS):
        sections = {FREE_TEXT: raw.strip()}
    return report_of_sections(raw, sections)


def report_of_sections(raw: str, sections: Mapping[str, str]) -> Report:
    """`sections` with their sentences; `raw` is kept as it is."""
    sentences = {name: split_sentences(section) for name, section in sections.items()}
    return Report(raw=raw, sections=dict(sections), sentences=sentences)


def split_sections(text: str, *, indented: bool = True) -> dict[str, str]:
    """Section texts by normalised name, in order of first appearance.

    The rules are those of MIMIC-CXR's published parser. A header is a line that starts with
    one space, capitals (also blanks and `()/,-`) and a colon; `indented=False` takes headers
    at the start of any line, for text that lost its layout. What precedes the first header is
    `preamble`; without any header all is `full report`. Of several sections of one name the
    last counts, once empty findings and impressions are removed. Without findings and
    impression, what follows the first blank line of the last section is `last_paragraph`.
    """
    pieces = [
        (name, section)
        for name, section in _cut(text, _HEADER if indented else _HEADER_OF_PLAIN_TEXT)
        if section.strip() or name not in MAIN_SECTIONS
    ]
    if not any(name in MAIN_SECTIONS for name, _ in pieces):
        name, section = pieces[-1]
        blank_line = _BLANK_LINE.search(section)
        if blank_line is not None:
            pieces[-1] = (name, section[: blank_line.start()])
            pieces.append(("last_paragraph", section[blank_line.end() :]))
    return {name: section.strip() for name, section in pieces}


def _cut(text: str, header: re.Pattern[str]) -> list[tuple[str, str]]:
    match = header.search(text)
    if match is None:
        return [("full report", text)]
    pieces = [("preamble", text[: match.start(1)])]
    while match is not None:
        # A header needs a line of its own start: the rest of this header's line is content,
        # even when it looks like another header.
        line_end = text.find("\n", match.end())
        following = header.search(text, line_end if line_end >= 0 else len(text))
        end = len(text) if following is None else following.start()
        pieces.append((section_name(match[1]), text[match.end() : end]))
        match = following
    return pieces


def section_name(header: str) -> str:
    """The normalised name of a header, in lower case.

    Known spellings first, then a main section's name inside the header, then a phrase about
    views, which means findings; any other header is its own name.
    """
    header = header.lower().strip()
    if header in _NAMES:
        return header
    if header in _NAME_OF_SPELLING:
        return _NAME_OF_SPELLING[header]
    for name in _NAMED_IN_HEADERS:
        if name in header:
            return name
    return "findings" if _VIEW_PHRASE.search(header) else header

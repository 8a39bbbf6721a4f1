"""A `Report` made of raw text: sections cut at their headers (or by a table), and sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from data_shards.records.policies import FREE_TEXT
from data_shards.records.study import Report

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


# Blank lines, the rule above which an addendum sits, and the title below that rule end a
# sentence wherever they stand. Three underscores are a removed name or date, not a rule.
_PARAGRAPH_END = re.compile(
    r"\n[ \t]*\n|^[ \t]*_{10,}[ \t]*$|^[ \t]*(?:FINAL REPORT|WET READ)[ \t]*$", re.MULTILINE
)
_LIST_NUMBER = re.compile(r"\(?(\d{1,2})[.)]\s*(?=[A-Za-z_(])")
_BULLET = re.compile(r"[*•]\s*|-\s+(?=[A-Z])")
# A mark with white space after it, or a full stop between a word and a capitalised one
# ("normal.No effusion").
_CANDIDATE = re.compile(r"[.?!][\"')\]]*\s+(?=\S)|(?<=[a-z]{2})\.(?=[A-Z][a-z]*\s)")
_LETTER = re.compile(r"[^\W\d_]")

# Case matters: "Ms." is a title, "MS." may end a sentence.
_TITLES = frozenset({"Dr.", "Drs.", "Mr.", "Mrs.", "Ms.", "Prof.", "St."})
_NEVER_LAST = frozenset({"e.g.", "i.e.", "vs.", "cf.", "approx.", "incl."})
_BEFORE_NUMBER = frozenset({"no.", "nos.", "fig.", "im.", "se."})
_CLOCK = frozenset({"a.m.", "p.m."})
_LAST_BEFORE_CAPITAL = frozenset({"etc.", "cm.", "mm.", "min.", "hr.", "hrs.", "pt.", "pts."})


def split_sentences(section: str) -> tuple[str, ...]:
    """The sentences of a section, in order, each on one line, without those with no letter.

    Wrapped lines are joined. List numbers go at the start of a line, if they count on from
    1, and after the end of a sentence: "2.5 cm", "rib 9." at the end of a sentence and times
    stay. Full stops of titles (Dr.), of e.g., vs., No. 3, a.m. and units in mid-sentence end
    nothing. Removed names and dates (`___`) stay.
    """
    return tuple(
        sentence
        for paragraph in _PARAGRAPH_END.split(section)
        for item in _items(paragraph)
        for sentence in _sentences(" ".join(item.split()))
        if _LETTER.search(sentence)
    )


def _items(paragraph: str) -> Iterator[str]:
    """The items of a list, without their numbers; a paragraph that is no list is one item.

    Lines are wrapped anywhere, so a number at the start of a line may be the last word of a
    sentence ("ribs 3 through / 9. No effusion"): it opens an item only if it counts on.
    """
    item: list[str] = []
    last_number = 0
    for line in paragraph.splitlines():
        line = line.strip()
        marker = _LIST_NUMBER.match(line)
        if marker is not None and int(marker[1]) not in (1, last_number + 1):
            marker = None
        if marker is not None:
            last_number = int(marker[1])
        else:
            marker = _BULLET.match(line)
        if marker is not None:
            yield " ".join(item)
            item = []
            line = line[marker.end() :]
        item.append(line)
    yield " ".join(item)


def _sentences(text: str) -> Iterator[str]:
    start = 0
    for candidate in _CANDIDATE.finditer(text):
        if _ends_sentence(text, candidate.start(), text[candidate.end()]):
            yield _without_list_number(text[start : candidate.end()])
            start = candidate.end()
    yield _without_list_number(text[start:])


def _ends_sentence(text: str, mark: int, next_character: str) -> bool:
    if text[mark] != ".":
        return True
    word = text[text.rfind(" ", 0, mark) + 1 : mark + 1].lstrip("(['\"")
    if word in _TITLES:
        return False
    word = word.lower()
    if word in _NEVER_LAST:
        return False
    if word in _BEFORE_NUMBER:
        return not next_character.isdigit()
    if word in _CLOCK:
        # "at 3 p.m. ___": the date was removed.
        return not (next_character.islower() or next_character == "_")
    if word in _LAST_BEFORE_CAPITAL or "." in word[:-1]:
        return not next_character.islower()
    return True


def _without_list_number(sentence: str) -> str:
    sentence = sentence.strip()
    marker = _LIST_NUMBER.match(sentence)
    return sentence if marker is None else sentence[marker.end() :]

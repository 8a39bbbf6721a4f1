"""Which section a header stands for.

Spellings are in the table beside this file. Those of MIMIC-CXR, and the rules on parts of a
header, are those of the parser published with the data set (MIT-LCP/mimic-cxr,
`txt/section_parser.py`), so that our sections are those of the official sectioned table.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path

import yaml

MAIN_SECTIONS = ("findings", "impression")

# A header that holds one of these anywhere is that section; the first match wins.
_NAMED_IN_HEADERS = ("impression", "findings", "history", "comparison", "addendum")

# Headers that only name the views ("PORTABLE AP CHEST") open the description of the images.
_VIEW_PHRASE = re.compile(
    r"chest|portable|(?:pa|ap) and lateral|lateral and (?:pa|ap)|frontal and|two views|one view"
    r"|(?:frontal|pa|ap|lateral) view|bone window|frontal (?:semi-)?upright|ribs|pa and lat"
)
# Headers with one of these words are of the record, not of what the images show.
_OF_THE_RECORD = re.compile(
    r"\b(?:accession|age|approved|attending|billing|by|cc|code|cpt|date|dictated|dob|dose|exam"
    r"|facility|fluoroscopy|gender|hospital|icd|location|md|medications?|modality|mrn|name|ordering"
    r"|patient|phone|physicians?|procedure|radiologists?|reason|referring|sex|signed|technologist"
    r"|time|transcribed)\b"
)

_COUNTS = re.compile(
    r"(?:no|two|three|four|several|these|the|there|both|all|new|multiple|significant|\d+)\b", re.I
)
# "Radiologist's conclusion", "Overall opinion"; a clinical diagnosis is no impression.
_QUALIFIED = re.compile(
    r"(?:(?:the|our|final|overall|main|imaging|chest|radiologist(?:'s|s)?|radiolog(?:ic|ical|y)"
    r"|radiographic|x-ray|cxr) )+(?P<name>.+)"
)
_SMALL_WORDS = frozenset({"and", "or", "of", "the", "&"})
# "imperssion" is .9 like the name, "compression" .86.
_SLIP = 0.9

_TABLE: dict[str, dict[str, list[str]]] = yaml.safe_load(
    Path(__file__).with_name("section_names.yaml").read_text(encoding="utf-8")
)
_MIMIC_CXR, _PLAIN = (
    {spelling: name for name, spellings in table.items() for spelling in spellings}
    for table in (_TABLE["mimic_cxr"], _TABLE["plain_texts"])
)
# These are names already, and must not reach the rules on parts of a header.
_NAMES = frozenset(_TABLE["mimic_cxr"]) | {
    "preamble",
    "technique",
    "notification",
    "date",
    "comment",
}
# In other texts a comment or a date below the findings is one of theirs, or of the record.
_PLAIN_NAMES = _NAMES - {"preamble", "comment", "date"} | {"addendum"}


def section_name(header: str) -> str:
    """The normalised name of a header of MIMIC-CXR, in lower case; its own where unknown."""
    return known_section(header) or header.lower().strip()


def known_section(header: str) -> str | None:
    """The section that a header in capitals stands for, or None.

    Known spellings first, then a main section's name inside the header, then a phrase about
    views, which means findings.
    """
    header = header.lower().strip()
    if header in _NAMES:
        return header
    return _MIMIC_CXR.get(header) or _named_inside(header) or _views(header)


def is_of_the_record(header: str) -> bool:
    """Whether a header in capitals is about patient, order or signature, not about images."""
    return _OF_THE_RECORD.search(header.lower()) is not None


def spelled(header: str) -> str:
    """A header as the table of spellings has it: lower case, without marks and odd blanks."""
    header = unicodedata.normalize("NFKC", header).casefold()
    header = header.replace("\u2019", "'").replace("&", " and ")
    # RECOMMENDATION(S), Findings (chest)
    header = re.sub(r"\(s\)?|\s*\([^()]*\)?\s*$", "", header)
    header = re.sub(
        r"\s*/\s*",
        "/",
        header.strip(" \t_*#()[]{}<>=~|.;'\"\u201c\u201d^-\u2013\u2014\u3010\u3011"),
    )
    header = " ".join(header.split())
    # F I N D I N G S
    return header.replace(" ", "") if re.fullmatch(r"(?:\w )+\w", header) else header


def plain_section(header: str, more: Mapping[str, str]) -> str | None:
    """The section that exactly these words head in a text of any layout, or None.

    `more` are names of the user's own, spelled as by `spelled`; they come first.
    """
    words = spelled(header)
    if words in more:
        return more[words]
    if words in _PLAIN_NAMES:
        return words
    qualified = _QUALIFIED.fullmatch(words)
    if qualified is not None and _exactly(qualified["name"]) == "impression":
        return "impression"
    return _exactly(words) or _misspelled(words)


def _exactly(words: str) -> str | None:
    return _MIMIC_CXR.get(words) or _PLAIN.get(words)


def qualified_section(header: str) -> str | None:
    """The section of a longer header before a colon ("Radiologist's impression"), or None.

    In capitals a section's name may stand anywhere in it. In other texts findings, impression and
    history may be the last of a few words, or any of words that are all capitalised: "There are
    two findings:" is a sentence.
    """
    if header.isupper():
        return _named_inside(spelled(header))
    words = re.split(r"[\s/]+", header)
    if not 2 <= len(words) <= 5 or not header[0].isupper() or _COUNTS.match(header):
        return None
    are_capitalised = all(word[:1].isupper() or word in _SMALL_WORDS for word in words)
    name = _named_inside(spelled(header if are_capitalised else words[-1]))
    few = are_capitalised or len(words) <= 3
    return name if few and name in (*MAIN_SECTIONS, "history") else None


def refuse_unknown_section(name: str) -> str:
    """`name`, if headers may stand for it. Raises ValueError for any other."""
    if name not in _PLAIN_NAMES:
        known = ", ".join(sorted(_PLAIN_NAMES))
        raise ValueError(f"no section of this name: choose one of {known}")
    return name


def names_views(header: str) -> bool:
    """Whether a header in capitals only says how the images were taken."""
    return _views(spelled(header)) is not None


@cache
def _misspelled(word: str) -> str | None:
    """The main section that a word of this length is a slip of, or None."""
    if not 7 <= len(word) <= 12:
        return None
    ratios = {name: SequenceMatcher(None, word, name).ratio() for name in MAIN_SECTIONS}
    return next((name for name, ratio in ratios.items() if ratio >= _SLIP), None)


def _named_inside(header: str) -> str | None:
    return next((name for name in _NAMED_IN_HEADERS if name in header), None)


def _views(header: str) -> str | None:
    return "findings" if _VIEW_PHRASE.search(header) else None

"""The names that section headers of MIMIC-CXR's reports stand for.

Spellings (in the table beside this file) and rules are those of the parser published with the data
set (MIT-LCP/mimic-cxr, `txt/section_parser.py`), so that our sections are those of the official
sectioned table.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

# A header that holds one of these anywhere is that section; the first match wins.
_MAIN_SECTIONS = ("impression", "findings", "history", "comparison", "addendum")

# Headers that only name the views ("PORTABLE AP CHEST") open the description of the images.
_VIEW_PHRASE = re.compile(
    r"chest|portable|(?:pa|ap) and lateral|lateral and (?:pa|ap)|frontal and|two views|one view"
    r"|(?:frontal|pa|ap|lateral) view|bone window|frontal (?:semi-)?upright|ribs|pa and lat"
)

_SPELLINGS: dict[str, list[str]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text())
_NAME_OF_SPELLING = {
    spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings
}
# These are names already, and must not reach the rules on parts of a header.
_NAMES = frozenset(_SPELLINGS) | {"preamble", "technique", "notification", "date", "comment"}


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
    for name in _MAIN_SECTIONS:
        if name in header:
            return name
    return "findings" if _VIEW_PHRASE.search(header) else header

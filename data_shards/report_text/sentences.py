"""The sentences of a section."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_shards.report_text.lists import Enumeration, items_of

# Blank lines, rules (such as the one above which an addendum sits), and the title below a rule
# end a sentence wherever they stand. Three underscores are a removed name or date, not a rule.
_RULE = r"(?:_{10,}|[-=*~#]{3,})"
_TITLE = (
    r"\W*(?:(?:FINAL|PRELIMINARY|AMENDED|CORRECTED|REVISED|END OF) (?:REPORT|ADDENDUM|READ)"
    r"|ADDENDUM|WET READ)\W*"
)
_PARAGRAPH_END = re.compile(
    rf"\n[ \t]*\n|^[ \t]*{_RULE}[ \t]*$(?:\s*^[ \t]*[A-Z][A-Z ()/-]+$)?|^{_TITLE}$",
    re.MULTILINE,
)
# In a text that is all in capitals, a line in capitals is no title.
_PARAGRAPH_END_IN_CAPITALS = re.compile(
    rf"\n[ \t]*\n|^[ \t]*{_RULE}[ \t]*$|^{_TITLE}$", re.MULTILINE
)
_CUT_WORD = re.compile(r"([^\W\d_]+)-[ \t]*\n[ \t]*([^\W\d_]+)")
# Halves that are words of their own: a line was broken at their hyphen.
_WHOLE_WORDS = frozenset(
    "air day end first five follow four full half high ill large left line long low mass medium"
    " mid month new old one post pre right round second short side six small soft third three two"
    " up week well wide year".split()
)
_SECOND_HALVES = frozenset(
    "a aerated appearing cath defined density formed level like line old rays related shaped side"
    " sided term type up year".split()
)

_CLOSING = "[\"')\\]\u2019\u201d\u00bb]*"
# A mark with white space after it, a full stop between a word and a capitalised one
# ("normal.No effusion"), or a mark of Chinese and Japanese, which need no blank.
_CANDIDATE = re.compile(
    rf"[.?!\u2026\u061f\u06d4\u0964]{_CLOSING}\s+(?=\S)|(?<=[a-z]{{2}})\.(?=[A-Z][a-z]*\s)"
    "|[\u3002\uff61\uff01\uff1f][\"'\u2019\u201d\uff09\u300d\u300f]*\\s*(?=\\S)"
)
_LETTER = re.compile(r"[^\W\d_]")
_CAPITALISED_START = re.compile(r"(?:\A|[.?!]\s+)[\W\d_]*[^\W\d_a-z]")

# Case matters: "Ms." is a title, "MS." may end a sentence.
_TITLES = frozenset({"Dr.", "Drs.", "Mr.", "Mrs.", "Ms.", "Prof.", "St."})
_NEVER_LAST = frozenset(
    "e.g. i.e. vs. cf. ca. approx. incl. bilat. infil. subseg. transv. mediast. prelim.".split()
)
_BEFORE_NUMBER = frozenset(
    "no. nos. nr. fig. figs. im. img. se. ser. vol. p. pp. est. abt. jan. feb. mar. apr. jun. jul."
    " aug. sep. sept. oct. nov. dec.".split()
)
# "ant.", "lat.", "post." and any other: whoever forgets a capital after a sentence is taken at
# their word where the word before the stop is longer, or in capitals.
_SHORT = re.compile(r"[^\W\d_]{1,4}\.")
_CLOCK = frozenset({"a.m.", "p.m."})
_LAST_BEFORE_CAPITAL = frozenset({"etc.", "cm.", "mm.", "min.", "hr.", "hrs.", "pt.", "pts."})


def split_sentences(section: str) -> tuple[str, ...]:
    """The sentences of a section, in order, each on one line, without those with no letter.

    Wrapped lines are joined, words cut at a line's end too. List marks go where a list is
    (`lists`). A full stop between a short word and a small letter (ant., post.) ends nothing,
    unless all of the section is in small letters, nor does one after a single capital (L., J. Smith), those of titles (Dr.), of
    e.g., vs., No. 3, a.m., and in numbers. A question mark after a blank ("? pneumonia") stays
    with what follows. Removed names and dates (`___`) stay.
    """
    paragraph_end = _PARAGRAPH_END_IN_CAPITALS if section.isupper() else _PARAGRAPH_END
    lists = Enumeration(section)
    is_small = _CAPITALISED_START.search(section) is None
    return tuple(
        sentence
        for paragraph in paragraph_end.split(_CUT_WORD.sub(_joined, section))
        for item in items_of(paragraph, lists)
        for part in lists.cut_where_it_goes_on(" ".join(item.split()))
        for sentence in _sentences(part, lists, is_small=is_small)
        if _LETTER.search(sentence)
    )


def _joined(match: re.Match[str]) -> str:
    first, second = match[1], match[2]
    if first[-1].isupper() or second[0].isupper():
        return f"{first}-{second}"
    is_compound = first.lower() in _WHOLE_WORDS or second in _SECOND_HALVES
    return f"{first}-{second}" if is_compound else first + second


def _sentences(text: str, lists: Enumeration, *, is_small: bool) -> Iterator[str]:
    start = 0
    for candidate in _CANDIDATE.finditer(text):
        following = text[candidate.end()]
        if _ends_sentence(text, candidate.start(), following, is_small=is_small):
            yield lists.without_number(text[start : candidate.end()])
            start = candidate.end()
    yield lists.without_number(text[start:])


def _ends_sentence(text: str, mark: int, following: str, *, is_small: bool) -> bool:
    if text[mark] in "?!\u061f":
        before = text[:mark].rstrip("?!\u061f")
        return bool(before) and before[-1] not in " ([{/"
    if text[mark] == "\u2026":
        return not following.islower()
    if text[mark] != ".":
        return True
    word = text[text.rfind(" ", 0, mark) + 1 : mark + 1].lstrip("(['\"\u201c\u2018")
    if word in _TITLES or (len(word) == 2 and word[0].isupper()):
        return False
    is_capitals = word.isupper()
    word = word.lower()
    if word in _NEVER_LAST:
        return False
    if word in _BEFORE_NUMBER:
        return not (following.isdigit() or following.islower())
    if following.islower():
        if word in _CLOCK | _LAST_BEFORE_CAPITAL or "." in word[:-1]:
            return False
        return is_small or is_capitals or not _SHORT.fullmatch(word)
    # "at 3 p.m. ___": the date was removed.
    return word not in _CLOCK or following != "_"

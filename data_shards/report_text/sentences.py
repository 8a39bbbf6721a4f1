"""Sentences of a report's section."""

from __future__ import annotations

import re
from collections.abc import Iterator

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

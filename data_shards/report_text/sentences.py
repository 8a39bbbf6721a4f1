"""The sentences of a section."""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_shards.report_text.lists import Enumeration, items_of

# Blank lines, rules (such as the one above which an addendum sits), and the title below a rule
# end a sentence wherever they stand. Three underscores are a removed name or date, not a rule.
_RULE = r"(?:_{10,}|[-=*~#]{3,})"
_TITLE = (
    r"[^\w\n]*(?=[A-Z])(?i:(?:final|preliminary|amended|corrected|revised|end of)"
    r" (?:report|addendum|read)|addendum|wet read)[^\w\n]*"
)
_PARAGRAPH_END = re.compile(
    rf"\n[ \t]*\n|^[ \t]*{_RULE}[ \t]*$(?:\s*^[ \t]*[A-Z][A-Z ()/-]+$)?|^{_TITLE}$",
    re.MULTILINE,
)
# In a text that is all in capitals, a line in capitals is no title.
_PARAGRAPH_END_IN_CAPITALS = re.compile(
    rf"\n[ \t]*\n|^[ \t]*{_RULE}[ \t]*$|^{_TITLE}$", re.MULTILINE
)
_CUT_WORD = re.compile(r"(?<![^\W_])([^\W_]+)[-\u2010\u2011]\n[ \t]*([^\W_]+)")
# Halves that are words of their own: a line was broken at their hyphen.
_FIRST_HALF = re.compile(
    r"(?:air|day|end|first|five|follow|four|full|half|high|ill|large|left|line|long|low|mass"
    r"|medium|mid|month|new|old|one|post|pre|right|round|second|short|side|six|small|soft|third"
    r"|three|two|up|week|well|wide|year)",
    re.IGNORECASE,
)
_SECOND_HALF = re.compile(
    r"a|aerated|appearing|cath|defined|density|formed|level|like|line|old|rays|related|shaped|side"
    r"|sided|term|type|up|year"
)

_CLOSING = "[\"')\\]\u2019\u201d\u00bb]*"
# A mark with white space after it, a full stop between a word and a capitalised one
# ("normal.No effusion"), or a mark of Chinese and Japanese, which need no blank.
_CANDIDATE = re.compile(
    rf"[.?!\u2026\u061f\u06d4\u0964]{_CLOSING}\s+(?=\S)|(?<=[a-z]{{2}})\.(?=[A-Z][a-z]*[\s:,])"
    "|[\u3002\uff61\uff01\uff1f][\"'\u2019\u201d\uff09\u300d\u300f]*\\s*(?=\\S)"
)
_LETTER = re.compile(r"[^\W\d_]")
_CAPITALISED_START = re.compile(r"(?:\A|[.?!]\s+)[\W\d_]{0,9}[^\W\d_a-z]")

# Case matters: "Ms." is a title, "MS." may end a sentence.
_TITLE_OF_PERSON = re.compile(r"(?:Drs?|Mrs?|Ms|Prof|St|Mt)\.")
_NEVER_LAST = re.compile(
    r"(?:e\.g|i\.e|vs|cf|ca|approx|incl|bilat|infil|subseg|transv|mediast|prelim)\."
)
_BEFORE_NUMBER = re.compile(
    r"(?:nos?|nr|figs?|im|img|ser?|seg|lev|gr|th|vol|vers?|pp?|est|abt|ext"
    r"|jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec)\."
)
# In small letters only these tell an abbreviation from the last word of a sentence.
_ABBREVIATED = re.compile(r"(?:ant|post|lat|sup|inf|med|prox|dist|prob|poss|resp|mod|min|max)\.")
_CLOCK = frozenset({"a.m.", "p.m."})
_LAST_BEFORE_CAPITAL = re.compile(r"(?:etc|cm|mm|min|hrs?|pts?|[ap]\.m)\.")
# "ant.", "lat.", "post." and any other: after longer words, and those that end in a vowel, a
# capital was forgotten ("None. chest pain").
_SHORT = re.compile(r"[^\W\d_]{0,3}[^\W\d_aeiou]\.")


def split_sentences(section: str) -> tuple[str, ...]:
    """The sentences of a section, in order, each on one line, without those with no letter.

    Wrapped lines are joined, words cut at a line's end too. List marks go where a list is
    (`lists`). A full stop ends nothing between a short word and a small letter (ant., post.),
    unless all of the section is in small letters, nor after a single capital (L., J. Smith),
    titles (Dr.), e.g., vs., No. 3, a.m., nor in numbers. A question mark after a blank
    ("? pneumonia") stays with what follows. Removed names and dates (`___`) stay.
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
    if first[-1].isdigit() and not second[0].isdigit():
        return match[0]
    is_compound = (
        not (first[-1].islower() and second[0].islower())
        or _FIRST_HALF.fullmatch(first)
        or _SECOND_HALF.fullmatch(second)
    )
    return f"{first}-{second}" if is_compound else first + second


def _sentences(text: str, lists: Enumeration, *, is_small: bool) -> Iterator[str]:
    start = 0
    for candidate in _CANDIDATE.finditer(text):
        following = text[candidate.end()]
        if text[start : candidate.start()].strip().isdigit():
            continue  # "8. rib": what has no letter yet is no sentence
        if _ends_sentence(text, candidate.start(), following, is_small=is_small):
            yield lists.without_number(text[start : candidate.end()])
            start = candidate.end()
    yield lists.without_number(text[start:])


def _ends_sentence(text: str, mark: int, following: str, *, is_small: bool) -> bool:
    if text[mark] in "?!\u061f":
        while mark and text[mark - 1] in "?!\u061f":
            mark -= 1
        return mark > 0 and text[mark - 1] not in " ([{/"
    if text[mark] == "\u2026":
        return not following.islower()
    if text[mark] != ".":
        return True
    word = text[text.rfind(" ", 0, mark) + 1 : mark + 1].lstrip("(['\"\u201c\u2018")
    if _TITLE_OF_PERSON.fullmatch(word) or (len(word) == 2 and word[0].isupper()):
        return False
    is_capitals, word = word.isupper(), word.lower()
    if _NEVER_LAST.fullmatch(word):
        return False
    if _BEFORE_NUMBER.fullmatch(word):
        return not (following.isdigit() or following.islower())
    if following.islower():
        if word[:-1].isdigit() and not is_small:
            return False
        if _LAST_BEFORE_CAPITAL.fullmatch(word) or "." in word[:-1]:
            return False
        if is_small:
            return not _ABBREVIATED.fullmatch(word)
        return is_capitals or not _SHORT.fullmatch(word)
    # "at 3 p.m. ___": the date was removed.
    return word not in _CLOCK or following != "_"

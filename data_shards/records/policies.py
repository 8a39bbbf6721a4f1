"""Which of a report's sentences a method sees, and how many words these have.

Shards keep every section, and their indices the words of each sentence, so a policy is chosen when
they are read: one more in `POLICIES` reads shards that are already built.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, TypeAlias

from pydantic import AfterValidator

from data_shards.records.study import NO_REPORT, Report

# The section of a report that is not a radiology report with headers (a case description, a
# caption). MIMIC-CXR's own header-less reports are "full report" and stay out, as in the
# papers.
FREE_TEXT = "free text"

_RUN = re.compile(r"[^\W_]+")
# What de-identification left in place of words: ___ (MIMIC-CXR), XXXX (Open-I), [** ... **],
# [REDACTED], <NAME>, {{DATE_1}}, **NAME[AAA] and their like.
_REMOVED = re.compile(
    r"\[\*\*.*?\*\*\]|(?:__|\*\*)[A-Z0-9]+(?:__|\*\*)"
    r"|\*{1,2}[A-Z]{2,}(?:-[A-Z]+)*\[[^\]]*\]|\*\*[A-Z]{2,}-[A-Z-]+\b"
    r"|\b(?:[Xx]{2,}|REDACTED|DE-?IDENTIFIED|ANONYMI[SZ]ED)\b"
    r"|[\[<{]{1,2}(?:[A-Z][A-Z0-9 _#:-]{2,}|[\w. -]{0,20}\b(?i:redacted|removed|deleted|masked"
    r"|de-?identified|anonymi[sz]ed|name|id|date|time|age|person|location|hospital|doctor|physician"
    r"|patient)\b[\w. -]{0,20})[\]>}]{1,2}"
)
# Chinese and Japanese have no blanks: each of their characters counts, as in the vocabularies of
# language models.
_IDEOGRAPHS = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W_{_IDEOGRAPHS}]+")


@dataclass(frozen=True, slots=True)
class Policy:
    """The sentences of `sections`, in this order, with `minimum_words_per_sentence` or more.

    Studies where these hold fewer than `minimum_words` are left out. A report with none of the
    sections falls back to `FREE_TEXT`, where there is one.
    """

    sections: tuple[str, ...]
    minimum_words: int = 1
    minimum_words_per_sentence: int = 1

    def sections_of(self, available: Collection[str]) -> tuple[str, ...]:
        """Those of the `available` sections that count, in order."""
        wanted = tuple(name for name in self.sections if name in available)
        return wanted or ((FREE_TEXT,) if FREE_TEXT in available else ())


# By the papers they are from; each is what its sections say, and any method may read any.
POLICIES: dict[str, Policy] = {
    "lovt": Policy(("findings", "impression"), minimum_words=3),
    "limitr": Policy(("findings", "impression")),
    # LIMITR's model for phrase grounding.
    "impression": Policy(("impression",)),
    # Trained on CheXpert, whose reports it knows by their impression; one-word sentences go.
    "gloria": Policy(("impression",), minimum_words_per_sentence=2),
    "mgca": Policy(("impression", "findings"), minimum_words=3, minimum_words_per_sentence=2),
    # For sets of labels, boxes or masks: studies without a report stay.
    "no_text": Policy((), minimum_words=0),
}


def _known(name: str) -> str:
    if name not in POLICIES:
        raise ValueError(f"no text policy of this name: choose one of {', '.join(POLICIES)}")
    return name


TextPolicy: TypeAlias = Annotated[str, AfterValidator(_known)]


def select_sentences(report: Report, policy: TextPolicy) -> tuple[str, ...]:
    """The sentences `policy` takes from `report`, in its order of sections; may be empty.

    A report without a section that the policy wants falls back to its free text, if it has any.
    """
    rules = POLICIES[policy]
    return tuple(
        sentence
        for name in rules.sections_of(report.sentences)
        for sentence in report.sentences[name]
        if _words_in(sentence) >= rules.minimum_words_per_sentence
    )


def words_of_sentences(report: Report) -> dict[str, tuple[int, ...]]:
    """The words of each sentence by section: enough to count under any policy.

    Of a study without a report there is `no report`, so that none is taken for a loss.
    """
    if report == NO_REPORT:
        return {"no report": ()}
    return {name: tuple(map(_words_in, sentences)) for name, sentences in report.sentences.items()}


def are_words_of(words: Mapping[str, Sequence[int]], report: Report) -> bool:
    """Whether `words` are those of the report's sentences, by today's rule or an earlier one.

    Earlier releases counted every run of letters and digits.
    """
    if words == words_of_sentences(report):
        return True
    return words == {
        name: tuple(len(_RUN.findall(sentence)) for sentence in sentences)
        for name, sentences in report.sentences.items()
    }


def selected_words(
    words: Mapping[str, Sequence[Sequence[int] | None]], policy: TextPolicy, *, studies: int
) -> list[int]:
    """The words of `select_sentences` for each of so many studies, out of `words_of_sentences`.

    `words` are columns, by section, with None for a study without it.
    """
    rules = POLICIES[policy]
    least = rules.minimum_words_per_sentence
    kept = [_kept(words[name], least) for name in rules.sections if name in words]
    # Over whole columns, for the speed: every study of a set passes here when it is opened.
    total = [*map(sum, zip(*kept, strict=True))] if kept else [0] * studies
    for place, free in enumerate(words.get(FREE_TEXT, ())):
        if free is not None:
            available = [name for name, column in words.items() if column[place] is not None]
            if rules.sections_of(available) == (FREE_TEXT,):
                [total[place]] = _kept([free], least)
    return total


def _kept(column: Sequence[Sequence[int] | None], least: int) -> list[int]:
    """The words in those sentences of each study that have `least` or more; 0 without sentences."""
    if least <= 1:
        return [*map(sum, [counts or () for counts in column])]
    return [sum([n for n in counts if n >= least]) if counts else 0 for counts in column]


def word_count(sentences: Iterable[str]) -> int:
    """Runs of letters and digits; punctuation and what de-identification left are no words."""
    return sum(map(_words_in, sentences))


# A loader counts each sentence twice, and reports repeat each other's.
@lru_cache(1 << 14)
def _words_in(sentence: str) -> int:
    return len(_WORD.findall(_REMOVED.sub(" ", sentence)))

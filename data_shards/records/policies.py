"""Which of a report's sentences a method sees.

Shards keep every section, so a policy is chosen when they are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from data_shards.records.study import Report

TextPolicy = Literal["lovt", "limitr", "impression", "gloria", "mgca"]
TEXT_POLICIES: tuple[TextPolicy, ...] = get_args(TextPolicy)

# The section of a report that is not a radiology report with headers (a case description, a
# caption). MIMIC-CXR's own header-less reports are "full report" and stay out, as in the
# papers.
FREE_TEXT = "free text"

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, slots=True)
class _Rules:
    sections: tuple[str, ...]
    minimum_words: int
    minimum_words_per_sentence: int = 1


_RULES: dict[TextPolicy, _Rules] = {
    "lovt": _Rules(("findings", "impression"), minimum_words=3),
    "limitr": _Rules(("findings", "impression"), minimum_words=1),
    # LIMITR's model for phrase grounding.
    "impression": _Rules(("impression",), minimum_words=1),
    # Trained on CheXpert, whose reports it knows by their impression; one-word sentences go.
    "gloria": _Rules(("impression",), minimum_words=1, minimum_words_per_sentence=2),
    "mgca": _Rules(
        ("impression", "findings"),
        minimum_words=3,
        minimum_words_per_sentence=2,
    ),
}


def select_sentences(report: Report, policy: TextPolicy) -> tuple[str, ...]:
    """The sentences `policy` takes from `report`, in its order of sections; may be empty.

    A report without a section the policy wants falls back to `FREE_TEXT`, where there is one.
    """
    rules = _RULES[policy]
    wanted = [name for name in rules.sections if name in report.sentences] or [FREE_TEXT]
    return tuple(
        sentence
        for name in wanted
        for sentence in report.sentences.get(name, ())
        if word_count([sentence]) >= rules.minimum_words_per_sentence
    )


def word_count(sentences: Iterable[str]) -> int:
    """Runs of letters and digits; punctuation and removed names (`___`) are no words."""
    return sum(len(_WORD.findall(sentence)) for sentence in sentences)


def minimum_words(policy: TextPolicy) -> int:
    """Studies whose selected sentences hold fewer words than this are left out."""
    return _RULES[policy].minimum_words

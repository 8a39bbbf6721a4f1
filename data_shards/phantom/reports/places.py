"""Sentences without the words for where a finding lies."""

from __future__ import annotations

import re

# As `phrasings.yaml` has them: which zone of which lung, and sides.
_ZONE = (
    r"(?:right|left) (?:(?:upper|mid|middle|lower) (?:lung(?: field)?|zone|lobe)|lung base|lingula)"
)
_WITHOUT = (
    (rf"\b(in|over) the {_ZONE}\b", r"\1 the lung"),
    (rf"\b{_ZONE} ", ""),
    (r"\b(?:right|left)(?:-sided)? apical (?=pneumothorax)", ""),
    (r"\b(?:right|left|bilateral)(?:-sided)? (?=pleural|pneumothorax|pulmonary)", ""),
    (r"\b(?:right|left) (?=atelectasis|consolidation|pneumonia|opacity|lung lesion)", ""),
    (r"\b(pleural effusion) on the (?:right|left)\b", r"\1"),
)
# What is left of these would be wrong: one lung is clear, one side has no effusion.
_ONE_SIDED = re.compile(r"\b(?:right|left) lung (?:is|remains) clear|No (?:right|left) pleural")


def without_place(sentence: str) -> str | None:
    """The sentence without the side and the zone of its finding; None if it were wrong so."""
    if _ONE_SIDED.search(sentence):
        return None
    for pattern, plain in _WITHOUT:
        sentence = re.sub(pattern, plain, sentence, flags=re.IGNORECASE)
    return sentence[:1].upper() + sentence[1:]

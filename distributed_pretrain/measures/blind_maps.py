"""Where findings use to lie: maps of the training boxes, which see no image."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from data_shards.records.study import Box

# What a map knows of a phrase: nothing, its category, its category and the place that it names.
BLIND = ("all", "category", "place")
# Findings with a place of their own in a lung; others (heart, effusion ...) lie where they must.
FOCAL = frozenset(
    {"Atelectasis", "Consolidation", "Lung Lesion", "Lung Opacity", "Pneumonia", "Nodule", "Mass"}
)

_SIDES = {"right": r"right", "left": r"left", "both": r"bilateral|both"}
_ZONES = {
    "upper": r"upper|apical|apex|apices",
    "mid": r"mid|middle|lingula|perihilar",
    "lower": r"lower|base|bases|basal|basilar|bibasilar|costophrenic",
}


class Place(NamedTuple):
    """The side and the zone that a phrase names; None where it names none, or several."""

    side: str | None
    zone: str | None


def place_of(phrase: str) -> Place:
    """What `phrase` says of where a finding lies."""

    def named(patterns: dict[str, str]) -> str | None:
        found = [
            name
            for name, pattern in patterns.items()
            if re.search(rf"\b(?:{pattern})\b", phrase, re.IGNORECASE)
        ]
        return found[0] if len(found) == 1 else None

    return Place(named(_SIDES), named(_ZONES))


class BlindMaps:
    """Means of boxes on the model's square, `size_px` x `size_px`, by what a phrase says."""

    def __init__(self, size_px: int) -> None:
        self.size_px = size_px
        self._sums: dict[tuple[str, ...], Tensor] = defaultdict(
            lambda: torch.zeros(size_px, size_px)
        )
        self._counts: dict[tuple[str, ...], int] = defaultdict(int)

    @property
    def phrases(self) -> int:
        """How many phrases have been learnt from."""
        return self._counts[()]

    def add(self, phrase: str, boxes: Sequence[Box], inside: Bool[Tensor, "size size"]) -> None:
        """Learn where the boxes of a training phrase lie."""
        for key in _keys(phrase, boxes[0].category):
            self._sums[key] += inside
            self._counts[key] += 1

    def of(self, phrase: str, category: str, knowing: str) -> Float[Tensor, "size size"]:
        """The map of what is known of a phrase (see `BLIND`), or of less where that is unseen."""
        keys = _keys(phrase, category)[: BLIND.index(knowing) + 1]
        key = next(each for each in reversed(keys) if self._counts.get(each))
        return self._sums[key] / self._counts[key]


def _keys(phrase: str, category: str) -> list[tuple[str, ...]]:
    place = place_of(phrase)
    return [(), (category,), (category, str(place.side), str(place.zone))]

"""What the page of `serve` answers: where a phrase is on an X-ray, and which reports fit it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from data_shards.own_inputs import sentences_of
from data_shards.records.study import Report
from distributed_pretrain.data.shards import ShardSplit
from distributed_pretrain.handover.images import ImageInput
from distributed_pretrain.handover.model import Model
from distributed_pretrain.measures.pictures import heat_on_its_own_scale

NEAREST = 5


@dataclass(frozen=True)
class NearReport:
    """A report, as the model reads it, that `studies` studies have, and how well it fits."""

    text: str
    studies: int
    similarity: float


@dataclass(frozen=True)
class Answer:
    """An X-ray as it was read, grey; the same under a phrase's heat; and the nearest reports.

    `heat` is None without a phrase. `low` and `high` are the ends of its scale, in the method's own
    similarity: where they are close, the map points nowhere.
    """

    x_ray: UInt8[ndarray, "height width"]
    heat: UInt8[ndarray, "height width 3"] | None
    low: float
    high: float
    nearest: tuple[NearReport, ...]


class Answers:
    """Answers of one model, among the distinct ones of `reports`, which are embedded once.

    Raises InputError for a method that reads no reports, and without any report.
    """

    def __init__(self, model: Model, reports: Sequence[Report]) -> None:
        self._model = model
        policy = model.data.text_policy
        distinct = {sentences_of(each, policy): each for each in reports}
        studies = Counter(sentences_of(each, policy) for each in reports)
        self._known = [(" ".join(each), studies[each]) for each in distinct]
        self._reports = model.read_reports(list(distinct.values()))

    def __len__(self) -> int:
        """How many distinct reports it knows."""
        return len(self._known)

    def read(self, image: ImageInput) -> UInt8[ndarray, "height width"]:
        """An X-ray as the run's shards would hold it. Raises InputError for what is none."""
        return self._model.reader.read(image).pixels

    def answer(self, x_ray: UInt8[ndarray, "height width"], phrase: str = "") -> Answer:
        """Of what `read` returned; the reports that fit it do not hang on the phrase.

        Raises InputError for a phrase without words.
        """
        heat, low, high = None, 0.0, 0.0
        if phrase:
            cells = self._model.ground(x_ray, phrase)[0].numpy()
            heat = heat_on_its_own_scale(x_ray / np.float32(255), cells)
            low, high = float(np.nanmin(cells)), float(np.nanmax(cells))
        [matches] = self._model.retrieve(x_ray, self._reports, k=NEAREST)
        nearest = (NearReport(*self._known[each.place], each.similarity) for each in matches)
        return Answer(x_ray, heat, low, high, tuple(nearest))


def reports_of(split: ShardSplit, *, most: int) -> list[Report]:
    """Reports of `most` studies, evenly spread over the split. Raises BadSampleError."""
    return [split.read(place).report for place in _spread(len(split), most)]


def _spread(count: int, most: int) -> Iterable[int]:
    if count <= most:
        return range(count)
    return (place * count // most for place in range(most))

"""What a method attends to in an image and in its report."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar

from distributed_pretrain.measures.base import OfFirstBatch, Picture, on_host
from distributed_pretrain.measures.pictures import displayed
from distributed_pretrain.measures.weighted_reports import (
    WeightedReport,
    weighted_reports_picture,
)

STUDIES = 6
# As tokenizers split them: runs of letters and digits, and every mark by itself.
_WORD = re.compile(r"\w+|[^\w\s]")


class AttentionWeights(OfFirstBatch):
    """The weights of regions and of sentences or words, for the first studies.

    What a method has of both: LoVT's pooling weighs regions and sentences, LIMITR words by their
    image, MGCA regions and words.
    """

    picture_notes: ClassVar[Mapping[str, str]] = {
        "attention_weights": "What counts in the image as a whole, as heat, and in its report: the "
        "stronger a sentence or word is marked, the greater its weight. Heat goes from the least "
        "to the greatest weight of its image, marks from 0 to the greatest of their report."
    }

    def pictures(self) -> dict[str, Picture]:
        """`attention_weights`, where a method has any."""
        if self.first is None:
            return {}
        batch, outputs = self.first
        first = slice(0, STUDIES)
        images, reports = outputs.images.rows(first), outputs.reports.rows(first)
        # Words' weights may depend on their image.
        reports = self.method.paired(images, reports, batch.sample_mask[first]).reports
        if images.region_weights is None and reports.local_weights is None:
            return {}
        shown = []
        pixels, words_of = displayed(batch.images[first]), batch.report.word_index.amax(dim=1) + 1
        for row, (image, record) in enumerate(zip(pixels, batch.records, strict=False)):
            sentences = self.context.sentences(record)
            own = reports.local_weights
            weights = None if own is None else on_host(own[row][reports.local_mask[row]]).tolist()
            as_lines = weights is None or len(weights) == int(batch.report.sentence_mask[row].sum())
            parts = list(sentences) if as_lines else _WORD.findall(" ".join(sentences))
            if weights is not None:
                # CLS, before the words, is no text; what did not fit was not read.
                weights = weights[max(0, len(weights) - int(words_of[row])) :]
                parts = parts[: len(weights)]
            regions = images.region_weights
            heat = None if regions is None else on_host(regions[row]).numpy()
            shown.append(WeightedReport(image, heat, parts, weights, as_lines))
        return {"attention_weights": weighted_reports_picture(shown)}

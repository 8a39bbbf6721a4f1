"""Phrase grounding on whole images."""

from __future__ import annotations

from distributed_pretrain.measures.grounding_metrics import GROUNDING_METRICS
from distributed_pretrain.measures.phrase_grounding import PhraseGrounding


class Grounding(PhraseGrounding):
    """`PhraseGrounding` on images as a model sees them."""

    metrics = GROUNDING_METRICS

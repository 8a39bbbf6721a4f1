"""Which images of a split are predicted best, as most are, and worst: to be looked at."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from distributed_pretrain.batch import Batch
from distributed_pretrain.measures.average_precision import AUTHORS, average_precisions
from distributed_pretrain.measures.base import Context, Measure
from distributed_pretrain.measures.overlap import dice_of, overlap_counts
from distributed_pretrain.methods.boxes import BoxOutputs, BoxPredictor, truths_of
from distributed_pretrain.methods.masks import MaskOutputs
from distributed_pretrain.methods.objective import Objective

# What an image is an example of, and where it stands among all, the highest score first.
_PLACES = {"best": 0.0, "median": 0.5, "worst": 1.0}


class Examples(Measure):
    """A score of each of this rank's images that shows something of what is asked for.

    Dice of masks, the mean over the classes that are marked; mAP of boxes, of the image alone.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.scores: dict[str, float] = {}

    @classmethod
    def applies(cls, objective: Objective) -> bool:
        """Where masks or boxes are predicted."""
        return objective.predicts_masks or isinstance(objective, BoxPredictor)

    def update(self, batch: Batch, outputs: MaskOutputs | BoxOutputs) -> None:
        """Score each image."""
        scores = _of_masks(outputs) if isinstance(outputs, MaskOutputs) else self._of_boxes(outputs)
        for key, score, real in zip(batch.keys, scores, batch.sample_mask.tolist(), strict=True):
            if real and not np.isnan(score):
                self.scores[key] = score

    def chosen(self) -> dict[str, str]:
        """The keys of the best, the median and the worst image; fewer where there are fewer."""
        ranked = sorted(self.scores, key=lambda key: (-self.scores[key], key))
        found: dict[str, str] = {}
        # The ends first: the median gives way where an image would be an example twice.
        for name in sorted(_PLACES, key=lambda name: -abs(_PLACES[name] - 0.5)):
            if (
                ranked
                and (key := ranked[round(_PLACES[name] * (len(ranked) - 1))]) not in found.values()
            ):
                found[name] = key
        return {name: found[name] for name in _PLACES if name in found}

    def _of_boxes(self, outputs: BoxOutputs) -> list[float]:
        objective, classes = self.context.objective, len(self.context.boxes)
        assert isinstance(objective, BoxPredictor)
        return [
            _mean(average_precisions([found], [truth], classes=classes, rules=AUTHORS))
            for found, truth in zip(
                objective.detect(outputs), truths_of(outputs.boxes), strict=True
            )
        ]


def _of_masks(outputs: MaskOutputs) -> list[float]:
    counts = overlap_counts(outputs.logits >= 0, outputs.masks).cpu()
    marked: Tensor = counts[..., 0] + counts[..., 2] > 0
    dice = dice_of(counts).where(marked, float("nan"))
    return [_mean(each) for each in dice.numpy()]


def _mean(values: np.ndarray) -> float:
    """Over what there is; NaN without any."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")

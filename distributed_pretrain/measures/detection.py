"""How well boxes are detected: average precision and free-response ROC over a whole split."""

from __future__ import annotations

import numpy as np

from distributed_pretrain.batch import Batch
from distributed_pretrain.measures.average_precision import (
    AUTHORS,
    COCO,
    IOU_THRESHOLDS,
    average_precisions,
)
from distributed_pretrain.measures.base import Context, Measure
from distributed_pretrain.measures.froc import froc
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.methods.boxes import (
    BoxOutputs,
    BoxPredictor,
    Detections,
    Truths,
    truths_of,
)
from distributed_pretrain.methods.objective import Objective
from distributed_pretrain.ranks import gather_objects

MAP = Metric("map", "mAP", headline=True)
MAP_COCO = Metric("map_coco", "mAP as COCO matches")
MAP_50 = Metric("map_50", "mAP at IoU 0.5")
MAP_75 = Metric("map_75", "mAP at IoU 0.75")
MAP_POSITIVE = Metric("map_positive", "mAP on images with boxes")
FROC = Metric("froc", "fROC", headline=True)
FROC_AUTHORS = Metric("froc_authors", "fROC as its script fills it")


class Detection(Measure):
    """LoVT's mAP, the mean over IoU 0.40:0.05:0.75 and classes with boxes, and Object-CXR's fROC.

    `map` counts as the authors' calculator, from which the published figures are, `map_coco` as
    pycocotools; images without boxes, or without detections, count in both, and `map_positive`
    leaves the former out. Without any box mAP is 0 and fROC 1; fROC knows no classes.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._detections: list[Detections] = []
        self._truths: list[Truths] = []

    @classmethod
    def applies(cls, objective: Objective) -> bool:
        """Where boxes are predicted."""
        return isinstance(objective, BoxPredictor)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """`map`, one a class, and the others."""
        others = (MAP_COCO, MAP_50, MAP_75, MAP_POSITIVE, FROC, FROC_AUTHORS)
        return (*MAP.of_each(self.context.boxes), *others)

    def update(self, batch: Batch, outputs: BoxOutputs) -> None:
        """Keep what was found on all ranks' images, and what is there."""
        objective = self.context.objective
        assert isinstance(objective, BoxPredictor)
        own = list(zip(objective.detect(outputs), truths_of(outputs.boxes), strict=True))
        real = batch.sample_mask.tolist()
        for pairs in gather_objects([pair for pair, kept in zip(own, real, strict=True) if kept]):
            for detected, truth in pairs:
                self._detections.append(detected)
                self._truths.append(truth)

    def compute(self) -> dict[str, float]:
        """The figures; empty without images."""
        if not self._truths:
            return {}
        of_each = self._precisions(self._detections, self._truths)
        classes = self.context.boxes
        boxed = [number for number, truth in enumerate(self._truths) if len(truth.category)]
        coco = average_precisions(self._detections, self._truths, classes=len(classes), rules=COCO)
        positive = self._precisions(
            [self._detections[number] for number in boxed],
            [self._truths[number] for number in boxed],
        )
        found = {
            MAP.name: _mean(of_each),
            MAP_COCO.name: _mean(coco),
            MAP_50.name: _mean(of_each[IOU_THRESHOLDS.index(0.5)]),
            MAP_75.name: _mean(of_each[IOU_THRESHOLDS.index(0.75)]),
            MAP_POSITIVE.name: _mean(positive),
            FROC.name: froc(self._detections, self._truths, fill="final"),
            FROC_AUTHORS.name: froc(self._detections, self._truths, fill="last_recorded"),
        }
        return MAP.mean_and_each(classes, of_each.mean(axis=0).tolist()) | found

    def _precisions(self, detections: list[Detections], truths: list[Truths]) -> np.ndarray:
        classes = len(self.context.boxes)
        return average_precisions(detections, truths, classes=classes, rules=AUTHORS)


def _mean(precisions: np.ndarray) -> float:
    """Over what there is; 0 without any box."""
    known = precisions[~np.isnan(precisions)]
    return float(known.mean()) if len(known) else 0.0

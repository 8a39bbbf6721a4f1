"""Dice and its kin are what a loop over pixels counts, and are defined at the edges."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from distributed_pretrain.batch import Batch
from distributed_pretrain.measures.base import Context
from distributed_pretrain.measures.overlap import (
    dice_of,
    iou_of,
    overlap_counts,
    precision_of,
    recall_of,
)
from distributed_pretrain.measures.segmentation import Segmentation
from distributed_pretrain.methods.masks import MaskOutputs
from distributed_pretrain.methods.objective import Objective
from tests.tiny.batches import batch_of

CLASSES = ("Edema", "Pneumonia")


class Predicts(Objective):
    """Nothing that is called."""

    predicts_masks = True

    def forward(self, batch: Batch) -> None:
        raise NotImplementedError


@dataclass
class Pixels:
    """What a loop counts of two lists of booleans."""

    hits: int
    wrong: int
    missed: int

    @classmethod
    def count(cls, predicted: Tensor, mask: Tensor) -> Pixels:
        pairs = list(zip(predicted.flatten().tolist(), mask.flatten().tolist(), strict=True))
        return cls(
            sum(p and m for p, m in pairs),
            sum(p and not m for p, m in pairs),
            sum(m and not p for p, m in pairs),
        )

    @property
    def dice(self) -> float:
        whole = 2 * self.hits + self.wrong + self.missed
        return 2 * self.hits / whole if whole else 0.0


def measured(logits: Tensor, masks: Tensor, sample_mask: Tensor | None = None) -> dict[str, float]:
    measure = Segmentation(Context(objective=Predicts(), device=torch.device("cpu"), masks=CLASSES))
    mask = torch.ones(len(logits), dtype=torch.bool) if sample_mask is None else sample_mask
    outputs = MaskOutputs(sample_mask=mask, logits=logits, masks=masks)
    # Two batches: nothing is a mean of means.
    for rows in (slice(0, 1), slice(1, None)):
        some = MaskOutputs(**{name: each[rows] for name, each in vars(outputs).items()})
        batch = batch_of([[[1]]] * len(logits[rows]))
        measure.update(Batch(**{**vars(batch), "sample_mask": mask[rows]}), some)
    found = measure.compute()
    assert found.keys() <= {metric.name for metric in measure.metrics}
    return found


@pytest.mark.parametrize("seed", range(3))
def test_they_are_what_a_loop_counts(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, 2, 6, 7, generator=generator)
    masks = torch.rand(5, 2, 6, 7, generator=generator) < 0.3
    masks[2] = False
    found = measured(logits, masks)
    predicted = logits.sigmoid() >= 0.5
    pooled = [Pixels.count(predicted[:, c], masks[:, c]) for c in range(2)]
    per_image = [
        [Pixels.count(predicted[i, c], masks[i, c]).dice for i in range(5) if masks[i, c].any()]
        for c in range(2)
    ]
    assert found == pytest.approx(
        {
            "dice": sum(each.dice for each in pooled) / 2,
            "dice_edema": pooled[0].dice,
            "dice_pneumonia": pooled[1].dice,
            "iou": sum(p.hits / (p.hits + p.wrong + p.missed) for p in pooled) / 2,
            "pixel_precision": sum(p.hits / (p.hits + p.wrong) for p in pooled) / 2,
            "pixel_recall": sum(p.hits / (p.hits + p.missed) for p in pooled) / 2,
            "dice_per_image": sum(sum(each) / len(each) for each in per_image) / 2,
        }
    )


def test_what_fills_up_a_batch_counts_nowhere() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 2, 5, 5, generator=generator)
    masks = torch.rand(4, 2, 5, 5, generator=generator) < 0.5
    real = torch.tensor([True, True, False, True])
    assert measured(logits, masks, real) == pytest.approx(measured(logits[real], masks[real]))


@pytest.mark.parametrize(("predicts", "marks"), [*itertools.product((False, True), repeat=2)])
def test_empty_and_full_masks_have_figures(predicts: bool, marks: bool) -> None:
    logits = torch.full((3, 2, 4, 4), 1.0 if predicts else -1.0)
    masks = torch.full((3, 2, 4, 4), marks)
    found = measured(logits, masks)
    assert all(map(math.isfinite, found.values()))
    assert found["dice"] == found["iou"] == float(predicts and marks)
    assert ("dice_per_image" in found) == marks
    counts = overlap_counts(logits >= 0, masks).sum(dim=0)
    alike = float(predicts == marks)
    assert dice_of(counts, empty=1.0).tolist() == iou_of(counts, empty=1.0).tolist() == [alike] * 2
    assert precision_of(counts).tolist() == recall_of(counts).tolist() == [found["dice"]] * 2


def test_everything_predicted_has_the_dice_of_the_marked_share() -> None:
    masks = torch.zeros(10, 1, 10, 10, dtype=torch.bool)
    masks[0, 0, :3, :9] = True  # 2.7 % of all pixels, as RSNA's boxes: Dice 5.3 %
    counts = overlap_counts(torch.ones_like(masks), masks).sum(dim=0)
    assert dice_of(counts).item() == pytest.approx(2 * 0.027 / 1.027)

"""How well masks are predicted: Dice over a whole split, and image by image."""

from __future__ import annotations

import torch
from torch import Tensor

from distributed_pretrain.batch import Batch
from distributed_pretrain.measures.base import Context, Measure
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.measures.overlap import (
    dice_of,
    iou_of,
    overlap_counts,
    precision_of,
    recall_of,
)
from distributed_pretrain.methods.masks import MaskOutputs
from distributed_pretrain.methods.objective import Objective
from distributed_pretrain.ranks import gather_rows

DICE = Metric("dice", "Dice", headline=True)
DICE_PER_IMAGE = Metric("dice_per_image", "Dice per image")
IOU = Metric("iou", "IoU")
PRECISION = Metric("pixel_precision", "precision of pixels")
RECALL = Metric("pixel_recall", "recall of pixels")
POOLED = ((IOU, iou_of), (PRECISION, precision_of), (RECALL, recall_of))


class Segmentation(Measure):
    """Pixels of a probability of a half or more, against the masks at the model's size.

    Dice, IoU, precision and recall of a class are those of the pixels of all images together, 0
    where nothing is marked or found, and the plain mean over classes. `dice_per_image` is the mean
    over the images on which something is marked, then over the classes that have any.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._counts: list[Tensor] = []

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """`dice`, one a class, and the others."""
        others = (metric for metric, _ in POOLED)
        return (*DICE.of_each(self.context.masks), *others, DICE_PER_IMAGE)

    @classmethod
    def applies(cls, objective: Objective) -> bool:
        """Where masks are predicted."""
        return objective.predicts_masks

    def update(self, batch: Batch, outputs: MaskOutputs) -> None:
        """Count the pixels of each image, on all ranks."""
        # Of logits: the sigmoid rounds, and 0 is a half exactly.
        counts = gather_rows(overlap_counts(outputs.logits >= 0, outputs.masks))
        self._counts.append(counts[gather_rows(batch.sample_mask)].cpu())

    def compute(self) -> dict[str, float]:
        """The figures; empty without images."""
        if not self._counts:
            return {}
        counts = torch.cat(self._counts)
        pooled = counts.sum(dim=0)
        found = DICE.mean_and_each(self.context.masks, dice_of(pooled).tolist())
        found |= {metric.name: ratio(pooled).mean().item() for metric, ratio in POOLED}
        marked = counts[..., 0] + counts[..., 2] > 0
        images = marked.sum(dim=0)
        if images.any():
            sums = torch.where(marked, dice_of(counts), 0.0).sum(dim=0)
            per_class = sums[images > 0] / images[images > 0]
            found[DICE_PER_IMAGE.name] = per_class.mean().item()
        return found

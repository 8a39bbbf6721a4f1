"""The linear protocol of segmentation: a 1x1 convolution on a frozen feature map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torchvision.io import ImageReadMode, decode_image

from data_shards.records.study import StudyRecord
from distributed_pretrain.batch import Batch
from distributed_pretrain.measures.base import (
    Context,
    FeatureOutputs,
    LearningMeasure,
    real_records,
    real_rows,
)
from distributed_pretrain.measures.geometry import evaluated_image, mask_on_model_square
from distributed_pretrain.measures.metric import Metric

LINEAR_DICE = Metric("linear_dice", "linear Dice")
LEARNING_RATES = (1e-1, 3e-2, 1e-2, 3e-3)
THRESHOLD = 0.5


@dataclass
class _Studies:
    """Feature maps and, by category, the masks of each study on the square that a model sees."""

    context: Context
    features: list[Tensor] = field(default_factory=list)
    masks: list[dict[str, Tensor]] = field(default_factory=list)

    def add(self, batch: Batch, outputs: FeatureOutputs) -> None:
        self.features.append(real_rows(outputs.feature_map, batch.sample_mask))
        size = batch.images.shape[-1]
        self.masks += [self._masks_of(record, size) for record in real_records(batch)]
        self.size = size

    @property
    def classes(self) -> tuple[str, ...]:
        """The categories that have a mask on any evaluated image, sorted."""
        return tuple(sorted({category for masks in self.masks for category in masks}))

    def as_set(self, classes: Sequence[str]) -> SegmentationSet:
        """Masks are empty where a study has none of a class."""
        masks = torch.zeros(len(self.masks), len(classes), self.size, self.size, dtype=torch.bool)
        for sample, by_category in enumerate(self.masks):
            for channel, category in enumerate(classes):
                if category in by_category:
                    masks[sample, channel] = by_category[category]
        return SegmentationSet(torch.cat(self.features), masks)

    def _masks_of(self, record: StudyRecord, size: int) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        chosen = evaluated_image(record)
        for mask in record.masks:
            if mask.image == chosen:
                assert self.context.read is not None, "masks are read from the shards"
                payload = np.frombuffer(self.context.read(record, mask.member), np.uint8).copy()
                stored = decode_image(torch.from_numpy(payload), ImageReadMode.GRAY)[0]
                inside = mask_on_model_square(
                    stored, record.images[chosen], size, crop_fraction=self.context.crop_fraction
                )
                found[mask.category] = found.get(mask.category, False) | inside
        return found


class LinearDice(LearningMeasure):
    """The Dice of a linear head for every category with masks, by `linear_dice`.

    Fitted to `labelled_studies` studies at a time, in sets without a study in common, and averaged.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._labelled, self._judged = _Studies(context), _Studies(context)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """`linear_dice`, and one a category."""
        return LINEAR_DICE.of_each(self._labelled.classes)

    def learn(self, batch: Batch, outputs: FeatureOutputs) -> None:
        """Keep labelled maps and their masks."""
        self._labelled.add(batch, outputs)

    def update(self, batch: Batch, outputs: FeatureOutputs) -> None:
        """Keep the maps to judge, and their masks."""
        self._judged.add(batch, outputs)

    def compute(self) -> dict[str, float]:
        """The Dice, the mean over classes and of each; empty where either side has no mask."""
        classes = self._labelled.classes
        if not classes or not self._judged.classes:
            return {}
        training, test = self._labelled.as_set(classes), self._judged.as_set(classes)
        by_subset = [
            linear_dice(
                SegmentationSet(training.features[rows], training.masks[rows]),
                test,
                seed=self.context.seed,
            )
            for rows in self.context.subsets(len(training.features))
        ]
        return LINEAR_DICE.mean_and_each(classes, torch.stack(by_subset).mean(dim=0).tolist())


@dataclass(frozen=True)
class SegmentationSet:
    """Feature maps of frozen images with their masks, one channel a class."""

    features: Float[Tensor, "samples channels rows columns"]
    masks: Bool[Tensor, "samples classes height width"]


def dice_loss(
    logits: Float[Tensor, "samples classes height width"],
    targets: Float[Tensor, "samples classes height width"],
) -> Float[Tensor, ""]:
    """1 - soft Dice, pooled over the pixels of the batch for each class, mean over classes.

    Dice = 2 sum(p t) / (sum p + sum t) with p = sigmoid(logits) and t in [0, 1]; LoVT's linear
    protocol.
    """
    probabilities = logits.sigmoid()
    overlap = (probabilities * targets).sum(dim=(0, 2, 3))
    size = probabilities.sum(dim=(0, 2, 3)) + targets.sum(dim=(0, 2, 3))
    return 1 - (2 * overlap / size.clamp_min(1e-8)).mean()


def pooled_dice(
    predicted: Bool[Tensor, "samples classes height width"],
    masks: Bool[Tensor, "samples classes height width"],
) -> Float[Tensor, " classes"]:
    """Dice of each class with the pixels of all samples pooled; 1 where both are empty."""
    overlap = (predicted & masks).sum(dim=(0, 2, 3)).double()
    size = (predicted.sum(dim=(0, 2, 3)) + masks.sum(dim=(0, 2, 3))).double()
    return torch.where(size > 0, 2 * overlap / size.clamp_min(1), 1.0)


@torch.enable_grad()  # its head is fitted, whoever judges without gradient
def linear_dice(
    training: SegmentationSet,
    test: SegmentationSet,
    *,
    seed: int,
    steps: int = 200,
    batch_size: int = 64,
    validation_fraction: float = 0.2,
    loss_stride: int = 4,
) -> Float[Tensor, " classes"]:
    """Dice of each class on `test` for a linear head trained on `training`.

    Adam, weight decay 1e-6, Dice loss, `steps` updates; of `LEARNING_RATES` the one with the best
    Dice on the last `validation_fraction` of the training samples is kept. Features are
    standardised per channel with the training samples' statistics, which a linear head could do
    itself but slowly.
    The head is trained on masks averaged over `loss_stride` x `loss_stride` pixels, much finer
    than a feature map still and many times quicker, and judged at full size. The same `seed`
    gives the same result.
    """
    mean = training.features.mean(dim=(0, 2, 3), keepdim=True)
    std = training.features.std(dim=(0, 2, 3), keepdim=True).clamp_min(1e-6)
    fitted = SegmentationSet((training.features - mean) / std, training.masks)
    held_out = max(1, round(validation_fraction * len(fitted.features)))
    fit, validate = _split(fitted, len(fitted.features) - held_out)
    targets = nn.functional.avg_pool2d(fit.masks.to(fit.features.dtype), loss_stride)
    best_score, best_head = -1.0, None
    for learning_rate in LEARNING_RATES:
        head = _train_head(fit.features, targets, learning_rate, seed, steps, batch_size)
        score = _dice_of(head, validate).mean().item()
        if score > best_score:
            best_score, best_head = score, head
    assert best_head is not None
    return _dice_of(best_head, SegmentationSet((test.features - mean) / std, test.masks))


def _train_head(
    features: Tensor, targets: Tensor, learning_rate: float, seed: int, steps: int, batch_size: int
) -> nn.Conv2d:
    generator = torch.Generator().manual_seed(seed)
    head = nn.Conv2d(features.shape[1], targets.shape[1], 1).to(features.device)
    assert head.bias is not None
    bound = features.shape[1] ** -0.5
    with torch.no_grad():
        head.weight.copy_((torch.rand(head.weight.shape, generator=generator) * 2 - 1) * bound)
        head.bias.fill_(-2.0)  # findings are rare: start from a mostly empty prediction
    optimizer = torch.optim.Adam(head.parameters(), lr=learning_rate, weight_decay=1e-6)
    for rows in islice(_shuffled_batches(len(features), batch_size, generator), steps):
        loss = dice_loss(_logits(head, features[rows], targets), targets[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return head


def _shuffled_batches(
    samples: int, batch_size: int, generator: torch.Generator
) -> Iterator[Tensor]:
    while True:
        yield from torch.randperm(samples, generator=generator).split(batch_size)


@torch.no_grad()
def _dice_of(head: nn.Conv2d, data: SegmentationSet) -> Float[Tensor, " classes"]:
    predicted = [
        _logits(head, features, data.masks).sigmoid() > THRESHOLD
        for features in data.features.split(64)
    ]
    return pooled_dice(torch.cat(predicted), data.masks)


def _logits(head: nn.Conv2d, features: Tensor, masks: Tensor) -> Tensor:
    size = (int(masks.shape[-2]), int(masks.shape[-1]))
    return nn.functional.interpolate(head(features), size, mode="bilinear", align_corners=False)


def _split(data: SegmentationSet, first: int) -> tuple[SegmentationSet, SegmentationSet]:
    return (
        SegmentationSet(data.features[:first], data.masks[:first]),
        SegmentationSet(data.features[first:], data.masks[first:]),
    )

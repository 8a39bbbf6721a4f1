"""The linear protocol of segmentation: a 1x1 convolution on a frozen feature map."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from data_shards.errors import InputError
from data_shards.records.study import StudyRecord
from distributed_pretrain.data.geometry import ModelSquare, evaluated_image
from distributed_pretrain.data.masks_and_boxes import stored_masks
from distributed_pretrain.losses.soft_dice import soft_dice_loss
from distributed_pretrain.measures.linear import LinearMeasure, LinearSet
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.measures.overlap import dice_of, overlap_counts

Maps: TypeAlias = Float[Tensor, "samples classes height width"]
Masks: TypeAlias = Bool[Tensor, "samples classes height width"]

LINEAR_DICE = Metric("linear_dice", "linear Dice")
LEARNING_RATES = (1e-1, 3e-2, 1e-2, 3e-3)
HELD_OUT = 0.2
BATCH_SIZE = 64
LOSS_STRIDE = 4
THRESHOLD = 0.5


class LinearDice(LinearMeasure):
    """The Dice of a linear head for every category with masks on any evaluated image."""

    metric = LINEAR_DICE
    unknown = False

    def known_of(self, record: StudyRecord) -> dict[str, Tensor]:
        """By category, the union of the masks on the square that a model sees, (size, size).

        Raises InputError for a mask that cannot be decoded.
        """
        assert self.context.read is not None, "masks are read from the shards"
        image = record.images[evaluated_image(record)]
        square = ModelSquare(image, self.size_px, self.context.crop_fraction)
        try:
            found = stored_masks(record, partial(self.context.read, record))
        except ValueError as error:
            raise InputError(
                f"{record.key}.{error}: run `python -m data_shards verify` and build the damaged "
                "shards again"
            ) from error
        return {category: square.mask(stored) for category, stored in found.items()}

    def judge(self, training: LinearSet, test: LinearSet) -> Float[Tensor, " classes"]:
        """See `linear_dice`."""
        return linear_dice(training, test, seed=self.context.seed)


def pooled_dice(predicted: Masks, masks: Masks) -> Float[Tensor, " classes"]:
    """Dice of each class with the pixels of all samples pooled; 1 where both are empty."""
    return dice_of(overlap_counts(predicted, masks).sum(dim=0), empty=1.0)


@torch.enable_grad()  # its head is fitted, whoever judges without gradient
def linear_dice(
    training: LinearSet, test: LinearSet, *, seed: int, steps: int = 200
) -> Float[Tensor, " classes"]:
    """Dice of each class on `test` for a linear head trained on `training`.

    Adam, weight decay 1e-6, Dice loss, `steps` updates; of `LEARNING_RATES` the one with the best
    Dice on the last fifth of the training samples is kept. Features are standardised per channel
    with the training samples' statistics, which a linear head could do itself but slowly. The head
    is trained on masks averaged over `LOSS_STRIDE` x `LOSS_STRIDE` pixels, much finer than a
    feature map still and many times quicker, and judged at full size. The same `seed` gives the
    same result.
    """
    mean = training.features.mean(dim=(0, 2, 3), keepdim=True)
    std = training.features.std(dim=(0, 2, 3), keepdim=True).clamp_min(1e-6)
    standardised = LinearSet((training.features - mean) / std, training.targets)
    samples = len(standardised.features)
    fitted = samples - max(1, round(HELD_OUT * samples))
    fit, held_out = standardised.rows(slice(fitted)), standardised.rows(slice(fitted, None))
    targets = nn.functional.avg_pool2d(fit.targets.to(fit.features.dtype), LOSS_STRIDE)
    heads = (_train_head(fit.features, targets, rate, seed, steps) for rate in LEARNING_RATES)
    best = max(heads, key=lambda head: _dice_of(head, held_out).mean().item())
    return _dice_of(best, LinearSet((test.features - mean) / std, test.targets))


def _train_head(
    features: Tensor, targets: Tensor, learning_rate: float, seed: int, steps: int
) -> nn.Conv2d:
    generator = torch.Generator().manual_seed(seed)
    head = nn.Conv2d(features.shape[1], targets.shape[1], 1).to(features.device)
    assert head.bias is not None
    bound = features.shape[1] ** -0.5
    with torch.no_grad():
        head.weight.copy_((torch.rand(head.weight.shape, generator=generator) * 2 - 1) * bound)
        head.bias.fill_(-2.0)  # findings are rare: start from a mostly empty prediction
    optimizer = torch.optim.Adam(head.parameters(), lr=learning_rate, weight_decay=1e-6)
    for rows in islice(_shuffled_batches(len(features), generator), steps):
        loss = soft_dice_loss(
            _logits(head, features[rows], targets), targets[rows], across_ranks=False
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return head


def _shuffled_batches(samples: int, generator: torch.Generator) -> Iterator[Tensor]:
    while True:
        yield from torch.randperm(samples, generator=generator).split(BATCH_SIZE)


@torch.no_grad()
def _dice_of(head: nn.Conv2d, data: LinearSet) -> Float[Tensor, " classes"]:
    predicted = [
        _logits(head, features, data.targets).sigmoid() > THRESHOLD
        for features in data.features.split(BATCH_SIZE)
    ]
    return pooled_dice(torch.cat(predicted), data.targets)


def _logits(head: nn.Conv2d, features: Tensor, masks: Tensor) -> Tensor:
    size = (int(masks.shape[-2]), int(masks.shape[-1]))
    return nn.functional.interpolate(head(features), size, mode="bilinear", align_corners=False)

"""The linear protocol of segmentation: a 1x1 convolution on a frozen feature map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

LEARNING_RATES = (1e-1, 3e-2, 1e-2, 3e-3)
THRESHOLD = 0.5


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

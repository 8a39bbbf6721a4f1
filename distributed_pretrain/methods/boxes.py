"""What an objective that predicts boxes gives: raw outputs, and detections made of them.

A box is its corners (left, top, right, bottom) in pixels of the model's image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from distributed_pretrain.batch import Boxes
from distributed_pretrain.methods.objective import Outputs


@dataclass(frozen=True)
class Truths:
    """The boxes of one image, with the number of each one's category."""

    corners: Float[Tensor, "boxes 4"]
    category: Int[Tensor, " boxes"]

    def of(self, category: int) -> Self:
        """Those of one category."""
        return self._rows(self.category == category)

    def _rows(self, chosen: Bool[Tensor, " boxes"] | Int[Tensor, " some"]) -> Self:
        return type(self)(**{name: each[chosen] for name, each in vars(self).items()})


@dataclass(frozen=True)
class Detections(Truths):
    """The boxes that were found on one image, each with its confidence in [0, 1]."""

    confidence: Float[Tensor, " boxes"]

    def by_confidence(self, *, most: int | None = None) -> Self:
        """The highest first, at most so many; equal ones in the order they stand in."""
        order = torch.argsort(self.confidence, descending=True, stable=True)
        return self._rows(order[:most])


@dataclass(frozen=True, kw_only=True)
class BoxOutputs(Outputs):
    """Of an objective that predicts boxes.

    `maps` are raw predictions by scale, coarsest first, and `boxes` the truth, whose categories
    are numbered as in `data.boxes`.
    """

    maps: tuple[Float[Tensor, "batch channels _rows _columns"], ...]
    boxes: Boxes


@runtime_checkable
class BoxPredictor(Protocol):
    """An objective whose outputs are `BoxOutputs`."""

    def detect(self, outputs: BoxOutputs) -> Sequence[Detections]:
        """What was found on each image, on the CPU, by falling confidence."""


def truths_of(boxes: Boxes) -> list[Truths]:
    """The boxes of each image, on the CPU."""
    corners, category = boxes.corners.float().cpu(), boxes.category.cpu()
    return [
        Truths(corners[row, present], category[row, present])
        for row, present in enumerate(boxes.present.cpu())
    ]

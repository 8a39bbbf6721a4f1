"""The images of a split as a model saw them, for pages that show some: no numbers."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from distributed_pretrain.batch import Batch
from distributed_pretrain.measures.base import Context, Measure, real_rows


class StudyImages(Measure):
    """Keeps every real sample's pixels, in order."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._pixels: list[Tensor] = []

    @property
    def pixels(self) -> Float[Tensor, "samples size size"]:
        """The images, normalised."""
        return torch.cat(self._pixels)

    def update(self, batch: Batch, outputs: Any) -> None:
        """Keep the images."""
        del outputs
        self._pixels.append(real_rows(batch.images[:, 0], batch.sample_mask))

"""Phrase grounding on crops, where knowing the chest tells less of where a finding lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from data_shards.records.study import Box, StudyRecord
from distributed_pretrain.batch import Batch
from distributed_pretrain.data.geometry import ModelSquare
from distributed_pretrain.measures.base import real_records
from distributed_pretrain.measures.grounding_metrics import CROPPED, CROPPED_METRICS
from distributed_pretrain.measures.phrase_grounding import PhraseGrounding
from distributed_pretrain.methods.image_text import ImageTextOutputs
from distributed_pretrain.ranks import gather_objects

SMALLEST_AREA = 0.4

Window = tuple[float, float, float]


class CroppedGrounding(PhraseGrounding):
    """`PhraseGrounding` on one square of each image, 0.4 to all of its area, shown as large.

    Which one is a function of the study's key, the same for every encoder; training boxes are seen
    through such squares too. A phrase counts where half of its boxes' pixels are inside.
    """

    metrics = CROPPED_METRICS

    def update(self, batch: Batch, outputs: ImageTextOutputs) -> None:
        """Keep the crops that show phrases with boxes, embedded by themselves."""
        size_px = batch.images.shape[-1]
        records = real_records(batch)
        has_phrases = any(self.phrases_of(each, self.square(each, size_px)) for each in records)
        # All ranks or none: methods may count over ranks while they embed.
        if any(gather_objects(has_phrases)):
            windows = [window_of(key) for key in batch.keys]
            cropped = replace(batch, images=cropped_images(batch.images, windows))
            outputs = replace(outputs, images=self.method.embed_images(cropped))
        super().update(batch, outputs)

    def compute(self) -> dict[str, float]:
        """As those of whole images, by names of their own."""
        whole = super().compute()
        return {name.replace("grounding", CROPPED, 1): value for name, value in whole.items()}

    def square(self, record: StudyRecord, size_px: int) -> ModelSquare:
        """The study's square."""
        return replace(super().square(record, size_px), window=window_of(record.key))

    def is_shown(self, boxes: Sequence[Box], square: ModelSquare) -> bool:
        """Whether half of the boxes is inside."""
        side = square.window[2]
        whole = replace(square, window=(0.0, 0.0, 1.0)).inside(boxes).sum() / side**2
        return bool(whole) and bool(square.inside(boxes).sum() >= 0.5 * whole)


def window_of(key: str) -> Window:
    """(left, top, side) of a study's square, in fractions of what a model sees of the image."""
    rng = np.random.default_rng(int.from_bytes(sha256(key.encode()).digest()[:8], "big"))
    side = float(np.sqrt(rng.uniform(SMALLEST_AREA, 1)))
    left, top = rng.uniform(0, 1 - side, 2).tolist()
    return left, top, side


def cropped_images(
    images: Float[Tensor, "batch channels size size"], windows: Sequence[Window]
) -> Float[Tensor, "batch channels size size"]:
    """Each image's window, stretched (bilinear) to the size of the image."""
    left, top, side = torch.tensor(windows, dtype=images.dtype, device=images.device).T
    zero = torch.zeros_like(side)
    # Positions run from -1 to 1 over the image.
    rows = [[side, zero, 2 * left + side - 1], [zero, side, 2 * top + side - 1]]
    affine = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)

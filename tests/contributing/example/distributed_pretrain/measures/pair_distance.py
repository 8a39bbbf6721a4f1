"""How near images lie to their own reports (Wang and Isola's alignment, arXiv:2005.10242)."""

from __future__ import annotations

import torch
from torch import Tensor

from distributed_pretrain.batch import Batch
from distributed_pretrain.losses.precision import unit_vectors
from distributed_pretrain.measures.base import Context, ImageTextMeasure
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.methods.image_text import ImageTextOutputs
from distributed_pretrain.ranks import gather_rows

PAIR_DISTANCE = Metric("pair_distance", "pair distance", unit="number", better="low")


class PairDistance(ImageTextMeasure):
    """The mean squared distance of a pair's unit vectors: from 0 to 4, where they are opposite."""

    metrics = (PAIR_DISTANCE,)

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._distances: list[Tensor] = []

    def update(self, batch: Batch, outputs: ImageTextOutputs) -> None:
        """Keep the distances of all ranks' pairs."""
        image, report = unit_vectors(outputs.images.image), unit_vectors(outputs.reports.report)
        distances = (image - report).square().sum(dim=1)
        self._distances.append(gather_rows(distances)[gather_rows(batch.sample_mask)].cpu())

    def compute(self) -> dict[str, float]:
        """The mean over pairs; empty without any."""
        found = torch.cat(self._distances) if self._distances else torch.empty(0)
        return {PAIR_DISTANCE.name: found.double().mean().item()} if len(found) else {}

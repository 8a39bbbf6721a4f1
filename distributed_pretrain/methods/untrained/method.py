"""An encoder as it starts: Random and ImageNet initialisation, the baselines without training."""

from __future__ import annotations

from typing import NoReturn

from distributed_pretrain.batch import Batch
from distributed_pretrain.methods.objective import Method
from distributed_pretrain.models.image_encoder import ImageEncoder


class Untrained(Method):
    """Has no loss: a run saves its one checkpoint and is complete."""

    def __init__(self, image_encoder: ImageEncoder) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.term_weights = {}

    def forward(self, batch: Batch) -> NoReturn:
        """Never called."""
        raise AssertionError(f"a starting point learns nothing from {len(batch.keys)} samples")

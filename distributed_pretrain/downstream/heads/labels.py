"""A linear layer on the mean of an encoder's feature map, which tells labels."""

from __future__ import annotations

from typing import Self

from data_shards.errors import InputError
from distributed_pretrain.methods.labels import LabelClassifier
from distributed_pretrain.methods.objective import Method


class LabelHead(LabelClassifier):
    """Logits of the labels. A `frozen` encoder keeps its weights and statistics.

    Raises InputError without labels.
    """

    def __init__(self, method: Method, classes: int, *, frozen: bool) -> None:
        if classes == 0:
            raise InputError(
                "data.labels=[]: this protocol learns to tell labels: name them, for example "
                'data.labels=["Edema", "Pneumonia"]'
            )
        # What the method hands on, and no more: the rest would be parameters without gradient.
        super().__init__(method.image_encoder.requires_grad_(not frozen), classes)
        self.frozen = frozen

    def train(self, mode: bool = True) -> Self:
        """The head's mode; a frozen encoder stays in evaluation."""
        super().train(mode)
        if self.frozen:
            self.image_encoder.eval()
        return self

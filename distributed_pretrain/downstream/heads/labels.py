"""A linear layer on the mean of an encoder's feature map, which tells labels."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from data_shards.errors import InputError
from distributed_pretrain.batch import Batch
from distributed_pretrain.methods.labels import LabelOutputs, known_labels, multi_label_term
from distributed_pretrain.methods.objective import Contrasted, Method, Objective


class LabelHead(Objective):
    """Logits of the labels. A `frozen` encoder keeps its weights and statistics.

    Raises InputError without labels.
    """

    predicts_labels = True

    def __init__(self, method: Method, classes: int, *, frozen: bool) -> None:
        super().__init__()
        if classes == 0:
            raise InputError(
                "data.labels=[]: this protocol learns to tell labels: name them, for example "
                'data.labels=["Edema", "Pneumonia"]'
            )
        self.frozen = frozen
        # What the method hands on, and no more: the rest would be parameters without gradient.
        self.image_encoder = method.image_encoder.requires_grad_(not frozen)
        self.classifier: nn.Module = nn.Linear(method.image_encoder.channels, classes)
        self.term_weights = {"multi_label": 1.0}

    def train(self, mode: bool = True) -> Self:
        """The head's mode; a frozen encoder stays in evaluation."""
        super().train(mode)
        if self.frozen:
            self.image_encoder.eval()
        return self

    def forward(self, batch: Batch) -> LabelOutputs:
        """A logit for each label."""
        assert batch.labels is not None, "data.labels is empty"
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            features = self.image_encoder(batch.images, batch.sample_mask).mean(dim=(2, 3))
        return LabelOutputs(
            logits=self.classifier(features),
            labels=batch.labels,
            sample_mask=batch.sample_mask,
        )

    def contrasted(self, outputs: LabelOutputs) -> Contrasted:
        """Logits and labels."""
        return known_labels(outputs)

    def batch_terms(self, contrasted: Contrasted) -> dict[str, Tensor]:
        """`multi_label`, the mean over the known labels of all ranks."""
        return multi_label_term(contrasted)

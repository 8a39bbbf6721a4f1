"""A perceptron of one hidden layer that tells labels."""

from __future__ import annotations

from torch import nn

from distributed_pretrain.methods.labels import LabelClassifier
from distributed_pretrain.models.image_encoder import ImageEncoder


class MlpHead(LabelClassifier):
    """As the linear head on frozen features, with a layer between."""

    def __init__(self, image_encoder: ImageEncoder, classes: int, *, hidden_dim: int) -> None:
        super().__init__(image_encoder, classes, frozen=True)
        self.classifier = nn.Sequential(
            nn.Linear(image_encoder.channels, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, classes),
        )

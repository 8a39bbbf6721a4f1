"""A perceptron of one hidden layer that tells labels."""

from __future__ import annotations

from torch import nn

from distributed_pretrain.downstream.heads.labels import LabelHead
from distributed_pretrain.methods.objective import Method


class MlpHead(LabelHead):
    """As the linear head on frozen features, with a layer between."""

    def __init__(self, method: Method, classes: int, *, hidden_dim: int) -> None:
        super().__init__(method, classes, frozen=True)
        self.classifier = nn.Sequential(
            nn.Linear(method.image_encoder.channels, hidden_dim),
            nn.ReLU(),
            nn.Linear(hidden_dim, classes),
        )

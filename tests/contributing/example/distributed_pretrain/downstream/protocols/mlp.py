"""Classification by a small perceptron on frozen features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import PositiveInt

from data_shards.profiles import Config

if TYPE_CHECKING:
    from distributed_pretrain.methods.objective import Method, Objective


class MlpConfig(Config):
    """One hidden layer; `data.labels` names what is told."""

    name: Literal["mlp"] = "mlp"
    hidden_dim: PositiveInt = 256

    def build(self, encoder: Method, *, classes: int) -> Objective:
        """The head."""
        from distributed_pretrain.downstream.heads.mlp import MlpHead

        return MlpHead(encoder.image_encoder, classes, hidden_dim=self.hidden_dim)

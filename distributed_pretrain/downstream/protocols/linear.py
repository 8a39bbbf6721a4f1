"""Linear classification: a layer on frozen features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from data_shards.profiles import Config

if TYPE_CHECKING:
    from distributed_pretrain.methods.objective import Method, Objective


class LinearConfig(Config):
    """The encoder is frozen, its statistics too; `data.labels` names what is told."""

    name: Literal["linear"] = "linear"

    def build(self, encoder: Method, *, classes: int) -> Objective:
        """The head."""
        from distributed_pretrain.methods.labels import LabelClassifier

        return LabelClassifier(encoder.image_encoder, classes, frozen=True)

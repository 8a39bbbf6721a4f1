"""Classification by fine-tuning: a layer on features that are trained with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from data_shards.profiles import Config

if TYPE_CHECKING:
    from distributed_pretrain.methods.objective import Method, Objective


class FinetuneConfig(Config):
    """The image encoder is trained too; `data.labels` names what is told."""

    name: Literal["finetune"] = "finetune"

    def build(self, encoder: Method, *, classes: int) -> Objective:
        """The head with its encoder."""
        from distributed_pretrain.methods.labels import LabelClassifier

        return LabelClassifier(encoder.image_encoder.requires_grad_(), classes)

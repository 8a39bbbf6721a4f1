"""Classification by fine-tuning: a layer on features that are trained with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from distributed_pretrain.downstream.protocols.base import HeadSizes, ProtocolConfig, Targets

if TYPE_CHECKING:
    from distributed_pretrain.methods.objective import Method, Objective


class FinetuneConfig(ProtocolConfig):
    """The image encoder is trained too; `data.labels` names what is told."""

    TARGETS: ClassVar[Targets] = "labels"

    name: Literal["finetune"] = "finetune"

    def build(self, encoder: Method, sizes: HeadSizes) -> Objective:
        """The head with its encoder."""
        from distributed_pretrain.methods.labels import LabelClassifier

        trained = encoder.image_encoder.requires_grad_()
        return LabelClassifier(trained, sizes.classes, upsample_px=encoder.upsample_px)

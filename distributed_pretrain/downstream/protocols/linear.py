"""Linear classification: a layer on frozen features."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from distributed_pretrain.downstream.protocols.base import HeadSizes, ProtocolConfig, Targets

if TYPE_CHECKING:
    from distributed_pretrain.methods.objective import Method, Objective


class LinearConfig(ProtocolConfig):
    """The encoder is frozen, its statistics too; `data.labels` names what is told."""

    TARGETS: ClassVar[Targets] = "labels"

    name: Literal["linear"] = "linear"

    @property
    def is_frozen(self) -> bool:
        """Yes."""
        return True

    def build(self, encoder: Method, sizes: HeadSizes) -> Objective:
        """The head."""
        from distributed_pretrain.methods.labels import LabelClassifier

        return LabelClassifier(
            encoder.image_encoder, sizes.classes, frozen=True, upsample_px=encoder.upsample_px
        )

"""Classification by a small perceptron on frozen features."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveInt

from distributed_pretrain.downstream.protocols.base import HeadSizes, ProtocolConfig, Targets

if TYPE_CHECKING:
    from distributed_pretrain.methods.objective import Method, Objective


class MlpConfig(ProtocolConfig):
    """One hidden layer; `data.labels` names what is told."""

    TARGETS: ClassVar[Targets] = "labels"

    name: Literal["mlp"] = "mlp"
    hidden_dim: PositiveInt = 256

    @property
    def is_frozen(self) -> bool:
        """Yes."""
        return True

    def build(self, encoder: Method, sizes: HeadSizes) -> Objective:
        """The head."""
        from distributed_pretrain.downstream.heads.mlp import MlpHead

        return MlpHead(encoder.image_encoder, sizes.classes, hidden_dim=self.hidden_dim)

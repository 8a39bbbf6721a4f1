"""The settings of a start without training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from distributed_pretrain.methods.settings import MethodConfig, Sizes

if TYPE_CHECKING:
    from distributed_pretrain.methods.untrained.method import Untrained


class UntrainedConfig(MethodConfig):
    """`image_encoder.weights` decides: `IMAGENET1K_V1` (or another start), or null for random."""

    name: Literal["untrained"] = "untrained"
    report_encoder: None = None

    def build(self, sizes: Sizes) -> Untrained:
        """The method."""
        from distributed_pretrain.methods.untrained.method import Untrained

        return Untrained(self.image_encoder.build())

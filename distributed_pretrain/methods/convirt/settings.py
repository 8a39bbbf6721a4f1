"""The settings of ConVIRT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from distributed_pretrain.methods.global_contrast.settings import GlobalContrastConfig
from distributed_pretrain.methods.settings import Sizes

if TYPE_CHECKING:
    from distributed_pretrain.methods.convirt.method import Convirt


class ConvirtConfig(GlobalContrastConfig):
    """The settings of ConVIRT's paper, with LoVT's sizes of the heads."""

    name: Literal["convirt"] = "convirt"

    def build(self, sizes: Sizes) -> Convirt:
        """The method."""
        from distributed_pretrain.methods.convirt.method import Convirt

        return Convirt(
            self, self.image_encoder.build(), self.report_encoder.build(sizes.vocabulary)
        )

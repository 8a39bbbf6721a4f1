"""LoVT's segmentation by a U-Net whose way down is the encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from distributed_pretrain.downstream.protocols.base import HeadSizes, LocalizedConfig, Targets

if TYPE_CHECKING:
    from distributed_pretrain.methods.objective import Method, Objective


class UNetConfig(LocalizedConfig):
    """`data.masks` names what is outlined; the loss is the soft Dice over a batch."""

    TARGETS: ClassVar[Targets] = "masks"

    name: Literal["unet"] = "unet"

    def build(self, encoder: Method, sizes: HeadSizes) -> Objective:
        """The decoder on the encoder."""
        from distributed_pretrain.downstream.heads.segmenter import Segmenter
        from distributed_pretrain.downstream.heads.unet import UNet

        head = UNet(encoder.image_encoder, **sizes._asdict())
        return Segmenter(encoder.image_encoder, head, frozen=self.is_frozen, warm_up=self.warm_up())

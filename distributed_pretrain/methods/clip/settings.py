"""The settings of CLIP*."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import PositiveInt

from distributed_pretrain.methods.global_contrast.settings import GlobalContrastConfig
from distributed_pretrain.methods.settings import Sizes
from distributed_pretrain.models.norms.kinds import Norm

if TYPE_CHECKING:
    from distributed_pretrain.methods.clip.method import Clip


class ClipConfig(GlobalContrastConfig):
    """LoVT's settings for its baseline, which shares encoders, heads and loss with it.

    `projection_norm` is that of the heads (see `Norm`).
    """

    name: Literal["clip"] = "clip"
    pooling_heads: PositiveInt = 8
    projection_norm: Norm = "sync"

    def build(self, sizes: Sizes) -> Clip:
        """The method."""
        from distributed_pretrain.methods.clip.method import Clip

        return Clip(self, self.image_encoder.build(), self.report_encoder.build(sizes.vocabulary))

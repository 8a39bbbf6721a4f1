"""CLIP*: LoVT's baseline after CLIP (arXiv:2103.00020), on images and one sentence each."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from distributed_pretrain.methods.global_contrast import GlobalContrast, GlobalContrastConfig
from distributed_pretrain.models.norms.choice import Norm


class ClipConfig(GlobalContrastConfig):
    """LoVT's settings for its baseline, which shares encoders, heads and loss with it.

    `projection_norm` is that of the heads (see `Norm`).
    """

    name: Literal["clip"] = "clip"
    pooling_heads: PositiveInt = 8
    projection_norm: Norm = "sync"


def build_clip(config: ClipConfig, *, vocabulary_size: int) -> GlobalContrast:
    """The image pooled by attention, and heads with a norm, as LoVT has them.

    `vocabulary_size` is that of the tokenizer. Errors as in `GlobalContrast`.
    """
    return GlobalContrast(
        config,
        vocabulary_size=vocabulary_size,
        norm=config.projection_norm,
        pooling_heads=config.pooling_heads,
    )

"""ConVIRT: contrastive learning of images and sentences (Zhang et al., arXiv:2010.00747)."""

from __future__ import annotations

from typing import Literal

from distributed_pretrain.methods.global_contrast import GlobalContrast, GlobalContrastConfig


class ConvirtConfig(GlobalContrastConfig):
    """The settings of ConVIRT's paper, with LoVT's sizes of the heads."""

    name: Literal["convirt"] = "convirt"


def build_convirt(config: ConvirtConfig, *, vocabulary_size: int) -> GlobalContrast:
    """The mean of the image's regions, and projections without a norm.

    `vocabulary_size` is that of the tokenizer. Errors as in `GlobalContrast`.
    """
    return GlobalContrast(config, vocabulary_size=vocabulary_size, norm=None)

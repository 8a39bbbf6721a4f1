"""CLIP*: LoVT's baseline after CLIP (arXiv:2103.00020), on images and one sentence each."""

from __future__ import annotations

from distributed_pretrain.methods.clip.settings import ClipConfig
from distributed_pretrain.methods.global_contrast.base import GlobalContrast
from distributed_pretrain.models.image_encoder import ImageEncoder
from distributed_pretrain.models.report_encoder import ReportEncoder


class Clip(GlobalContrast):
    """The image pooled by attention, and heads with a norm, as LoVT has them."""

    def __init__(
        self, config: ClipConfig, image_encoder: ImageEncoder, report_encoder: ReportEncoder
    ) -> None:
        super().__init__(
            config,
            image_encoder,
            report_encoder,
            norm=config.projection_norm,
            pooling_heads=config.pooling_heads,
        )

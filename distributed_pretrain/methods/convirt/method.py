"""ConVIRT: contrastive learning of images and sentences (Zhang et al., arXiv:2010.00747)."""

from __future__ import annotations

from distributed_pretrain.methods.convirt.settings import ConvirtConfig
from distributed_pretrain.methods.global_contrast.base import GlobalContrast
from distributed_pretrain.models.image_encoder import ImageEncoder
from distributed_pretrain.models.report_encoder import ReportEncoder


class Convirt(GlobalContrast):
    """The mean of the image's regions, and projections without a norm."""

    def __init__(
        self, config: ConvirtConfig, image_encoder: ImageEncoder, report_encoder: ReportEncoder
    ) -> None:
        super().__init__(config, image_encoder, report_encoder, norm=None)

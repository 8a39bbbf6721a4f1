"""LoVT's linear segmentation: a 1x1 convolution on the last map, spread over the image."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from distributed_pretrain.downstream.heads.pyramid import Needs, PyramidHead
from distributed_pretrain.models.image_encoder import ImageEncoder


class LinearSegmentation(PyramidHead):
    """2,049 parameters for one class on a ResNet-50: weights and a bias, no norm, no dropout."""

    needs = Needs(stages=())

    def __init__(self, image_encoder: ImageEncoder, classes: int, *, image_size_px: int) -> None:
        super().__init__()
        self.size = (image_size_px, image_size_px)
        self.classifier = nn.Conv2d(image_encoder.channels, classes, kernel_size=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits (batch, classes, size, size), bilinear between the last map's cells."""
        logits = self.classifier(maps[-1])
        return F.interpolate(logits, self.size, mode="bilinear", align_corners=False)

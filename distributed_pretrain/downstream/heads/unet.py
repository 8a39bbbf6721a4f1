"""LoVT's U-Net: a decoder on an encoder's five stages and the image."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from distributed_pretrain.downstream.heads.pyramid import (
    ConvNormRelu,
    Needs,
    PyramidHead,
    at_least,
    pyramid_of,
    refuse_image_size,
)
from distributed_pretrain.models.image_encoder import ImageEncoder


class UNet(PyramidHead):
    """A bridge of two blocks, five steps up with a skip each, and a 1x1 convolution to the classes.

    A step is a transposed convolution (2x2, stride 2) to the skip's channels, the skip beside it,
    and two blocks of 3x3 convolution, batch norm and ReLU. On a ResNet-50 the steps have 1024, 512,
    256, 128 and 64 channels: those of conv4, conv3 and conv2, then half and a quarter of the last.
    A stage that is as fine as the one above it gets a step that stays at its size.
    """

    needs = Needs(stages=(0, 1, 2, 3, 4), image=True)

    def __init__(self, image_encoder: ImageEncoder, classes: int, *, image_size_px: int) -> None:
        super().__init__()
        stages = pyramid_of(image_encoder, "unet")
        refuse_image_size(image_size_px, stages)
        # Coarsest first, the image last.
        skips = [*(each.channels for each in stages[-2::-1]), 3]
        strides = [*(each.stride for each in stages[::-1]), 1]
        second = stages[1].channels
        widths = [*(each.channels for each in stages[-2:0:-1]), second // 2, second // 4]
        deepest = stages[-1].channels
        self.bridge = nn.Sequential(ConvNormRelu(deepest, deepest), ConvNormRelu(deepest, deepest))
        self.steps = nn.ModuleList()
        channels = deepest
        for width, skip, (coarse, fine) in zip(widths, skips, pairwise(strides), strict=True):
            self.steps.append(_Step(channels, at_least(width), skip=skip, factor=coarse // fine))
            channels = at_least(width)
        self.classifier = nn.Conv2d(channels, classes, kernel_size=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits (batch, classes, size, size); `maps` are the image's three channels and stages."""
        *skips, deepest = maps
        found = self.bridge(deepest)
        for step, skip in zip(self.steps, skips[::-1], strict=True):
            found = step(found, skip)
        logits: Tensor = self.classifier(found)
        return logits


class _Step(nn.Module):
    def __init__(self, channels: int, width: int, *, skip: int, factor: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(channels, width, kernel_size=factor, stride=factor)
        self.blocks = nn.Sequential(ConvNormRelu(width + skip, width), ConvNormRelu(width, width))

    def forward(self, maps: Tensor, skip: Tensor) -> Tensor:
        beside = torch.cat([self.up(maps), skip.to(maps.dtype)], dim=1)
        found: Tensor = self.blocks(beside)
        return found

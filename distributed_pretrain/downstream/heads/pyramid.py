"""Heads on the maps of an encoder's stages: what all of them are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from torch import nn

from data_shards.errors import InputError
from distributed_pretrain.models.image_encoder import ImageEncoder
from distributed_pretrain.models.trunks.base import Stage
from distributed_pretrain.models.trunks.resnet import RESNETS

# Below which a map has no channels to speak of.
FEWEST_CHANNELS = 8


class Needs(NamedTuple):
    """What a head reads: of the encoder's stages those of these numbers, and perhaps the image."""

    stages: tuple[int, ...]
    image: bool = False


class PyramidHead(nn.Module):
    """From a list of maps, those of `needs` in order and the image before them, to predictions."""

    needs: ClassVar[Needs]


def pyramid_of(image_encoder: ImageEncoder, head: str, *, stages: int = 5) -> tuple[Stage, ...]:
    """The encoder's stages, finest first. Raises InputError for one that has not so many."""
    pyramid = image_encoder.backbone.pyramid
    if len(pyramid) < stages:
        raise InputError(
            f"protocol.name={head}: reads the maps of {stages} stages, of which this encoder has "
            f"{len(pyramid)}: choose {', '.join(RESNETS)} (with last_stage=4), or a linear protocol"
        )
    return pyramid


def refuse_image_size(image_size_px: int, pyramid: Sequence[Stage]) -> None:
    """Raise InputError unless an image's cells lie on those of the next finer stage."""
    stride = max(stage.stride for stage in pyramid)
    if image_size_px % stride:
        below = image_size_px - image_size_px % stride
        raise InputError(
            f"data.image_size_px={image_size_px}: the coarsest map has a cell every {stride} px: "
            f"use {below or stride} or {below + stride}"
        )


class ConvNormRelu(nn.Sequential):
    """3x3 convolution with bias, batch norm, ReLU."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(
            nn.Conv2d(channels, out, kernel_size=3, padding=1),
            nn.BatchNorm2d(out),
            nn.ReLU(inplace=True),
        )


def at_least(channels: int) -> int:
    """So many, but no fewer than `FEWEST_CHANNELS`."""
    return max(FEWEST_CHANNELS, channels)

"""The downstream protocols there are: a union of their settings, by `name`."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from distributed_pretrain.downstream.protocols.finetune import FinetuneConfig
from distributed_pretrain.downstream.protocols.linear import LinearConfig
from distributed_pretrain.downstream.protocols.linear_segmentation import LinearSegmentationConfig
from distributed_pretrain.downstream.protocols.unet import UNetConfig
from distributed_pretrain.downstream.protocols.yolov3 import YoloConfig

AnyProtocolConfig: TypeAlias = Annotated[
    LinearConfig | FinetuneConfig | LinearSegmentationConfig | UNetConfig | YoloConfig,
    Field(discriminator="name"),
]

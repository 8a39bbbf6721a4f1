"""The methods there are: a union of their settings, by `name`."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from distributed_pretrain.methods.byol.settings import ByolConfig
from distributed_pretrain.methods.chexpert.settings import ChexpertConfig
from distributed_pretrain.methods.global_contrast.settings import ClipConfig, ConvirtConfig
from distributed_pretrain.methods.gloria.settings import GloriaConfig
from distributed_pretrain.methods.limitr.settings import LimitrConfig
from distributed_pretrain.methods.lovt.settings import LovtConfig
from distributed_pretrain.methods.mgca.settings import MgcaConfig
from distributed_pretrain.methods.pixelpro.settings import PixelproConfig
from distributed_pretrain.methods.simclr.settings import SimclrConfig
from distributed_pretrain.methods.untrained.settings import UntrainedConfig

AnyMethodConfig: TypeAlias = Annotated[
    LovtConfig
    | LimitrConfig
    | GloriaConfig
    | ConvirtConfig
    | ClipConfig
    | SimclrConfig
    | ByolConfig
    | PixelproConfig
    | ChexpertConfig
    | MgcaConfig
    | UntrainedConfig,
    Field(discriminator="name"),
]

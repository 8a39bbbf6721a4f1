"""The methods there are: add a config to the union and a case to the match."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from distributed_pretrain.methods.byol.method import ByolConfig, build_byol
from distributed_pretrain.methods.chexpert.method import ChexpertConfig, build_chexpert
from distributed_pretrain.methods.clip.method import ClipConfig, build_clip
from distributed_pretrain.methods.convirt.method import ConvirtConfig, build_convirt
from distributed_pretrain.methods.gloria.method import GloriaConfig, build_gloria
from distributed_pretrain.methods.limitr.method import LimitrConfig, build_limitr
from distributed_pretrain.methods.lovt.method import LovtConfig, build_lovt
from distributed_pretrain.methods.mgca.method import MgcaConfig, build_mgca
from distributed_pretrain.methods.objective import Method
from distributed_pretrain.methods.pixelpro.method import PixelproConfig, build_pixelpro
from distributed_pretrain.methods.simclr.method import SimclrConfig, build_simclr
from distributed_pretrain.methods.untrained.method import InitialConfig, build_initial

MethodConfig: TypeAlias = Annotated[
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
    | InitialConfig,
    Field(discriminator="name"),
]


def build_method(config: MethodConfig, *, vocabulary_size: int, classes: int = 0) -> Method:
    """The method that `config` names.

    `vocabulary_size` is that of the tokenizer, `classes` the number of labels a batch has.
    """
    match config:
        case LovtConfig():
            return build_lovt(config, vocabulary_size=vocabulary_size)
        case LimitrConfig():
            return build_limitr(config, vocabulary_size=vocabulary_size)
        case GloriaConfig():
            return build_gloria(config, vocabulary_size=vocabulary_size)
        case ConvirtConfig():
            return build_convirt(config, vocabulary_size=vocabulary_size)
        case ClipConfig():
            return build_clip(config, vocabulary_size=vocabulary_size)
        case SimclrConfig():
            return build_simclr(config)
        case ByolConfig():
            return build_byol(config)
        case PixelproConfig():
            return build_pixelpro(config)
        case ChexpertConfig():
            return build_chexpert(config, classes=classes)
        case MgcaConfig():
            return build_mgca(config, vocabulary_size=vocabulary_size)
        case InitialConfig():
            return build_initial(config)

"""The downstream protocols there are: a union of their settings, by `name`.

Each has `build`: its head on an encoder, for so many classes. InputError for what does not fit.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from distributed_pretrain.downstream.protocols.finetune import FinetuneConfig
from distributed_pretrain.downstream.protocols.linear import LinearConfig

AnyProtocolConfig: TypeAlias = Annotated[
    LinearConfig | FinetuneConfig,
    Field(discriminator="name"),
]

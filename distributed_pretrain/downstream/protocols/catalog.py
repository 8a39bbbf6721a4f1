"""The downstream protocols there are: a union of their settings, by `name`."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from distributed_pretrain.downstream.protocols.finetune import FinetuneConfig
from distributed_pretrain.downstream.protocols.linear import LinearConfig

AnyProtocolConfig: TypeAlias = Annotated[
    LinearConfig | FinetuneConfig,
    Field(discriminator="name"),
]

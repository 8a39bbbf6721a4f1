"""The methods there are: add a config to the union and a case to the match."""

from __future__ import annotations

from typing import TypeAlias

from distributed_pretrain.methods.base import Method
from distributed_pretrain.methods.lovt import LovtConfig, build_lovt

# With a second member: Annotated[LovtConfig | OtherConfig, Field(discriminator="name")].
MethodConfig: TypeAlias = LovtConfig


def build_method(config: MethodConfig, *, vocabulary_size: int) -> Method:
    """The method that `config` names, for a tokenizer of `vocabulary_size` tokens."""
    match config:
        case LovtConfig():
            return build_lovt(config, vocabulary_size=vocabulary_size)

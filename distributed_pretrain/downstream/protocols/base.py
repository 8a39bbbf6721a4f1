"""What the settings of every downstream protocol say: how its head is built on an encoder."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from data_shards.profiles import Config

if TYPE_CHECKING:
    from distributed_pretrain.methods.objective import Method, Objective


class ProtocolConfig(Config):
    """Base of the settings of a protocol; each adds the `name` that profiles choose it by."""

    @abstractmethod
    def build(self, encoder: Method, *, classes: int) -> Objective:
        """The head on `encoder`, for `classes` labels. Raises InputError for what does not fit."""

"""The settings of SimCLR."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import PositiveFloat, PositiveInt

from data_shards.profiles import FREE
from distributed_pretrain.data.settings import Reads
from distributed_pretrain.methods.settings import MethodConfig, Sizes
from distributed_pretrain.models.norms.kinds import Norm

if TYPE_CHECKING:
    from distributed_pretrain.methods.simclr.method import Simclr


class SimclrConfig(MethodConfig):
    """SimCLR as LoVT's authors compare with it.

    `projection_norm` is null as in the paper's g(h) = W2 ReLU(W1 h), and in that comparison; its
    authors' code has a batch norm there. `chunk_size` bounds the loss's memory, in
    views.
    """

    name: Literal["simclr"] = "simclr"
    report_encoder: None = None
    projection_dim: PositiveInt = 128
    projection_hidden_dim: PositiveInt = 2048
    projection_norm: Norm | None = None
    temperature: PositiveFloat = 0.1
    chunk_size: Annotated[PositiveInt | None, FREE] = None

    @property
    def reads(self) -> Reads:
        """What it reads of a study."""
        return Reads(views="two_augmentations")

    def build(self, sizes: Sizes) -> Simclr:
        """The method."""
        from distributed_pretrain.methods.simclr.method import Simclr

        return Simclr(self, self.image_encoder.build())

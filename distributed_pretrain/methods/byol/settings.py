"""The settings of BYOL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveInt

from distributed_pretrain.data.settings import Reads
from distributed_pretrain.methods.settings import MethodConfig, Sizes
from distributed_pretrain.models.norms.kinds import Norm

if TYPE_CHECKING:
    from distributed_pretrain.methods.byol.method import Byol


class ByolConfig(MethodConfig):
    """BYOL as LoVT's authors compare with it.

    The predictor has the projection's sizes. `teacher_momentum` is that of the first update; it
    rises to 1 over the run (see `ema_momentum`).
    """

    name: Literal["byol"] = "byol"
    report_encoder: None = None
    projection_dim: PositiveInt = 128
    projection_hidden_dim: PositiveInt = 4096
    projection_norm: Norm = "sync"
    teacher_momentum: Annotated[float, Field(ge=0, le=1)] = 0.996

    @property
    def reads(self) -> Reads:
        """What it reads of a study."""
        return Reads(views="two_augmentations")

    def build(self, sizes: Sizes) -> Byol:
        """The method."""
        from distributed_pretrain.methods.byol.method import Byol

        return Byol(self, self.image_encoder.build())

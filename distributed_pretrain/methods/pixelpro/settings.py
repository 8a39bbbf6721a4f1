"""The settings of PixPro."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from distributed_pretrain.data.settings import Reads
from distributed_pretrain.methods.settings import MethodConfig, Sizes
from distributed_pretrain.models.norms.kinds import Norm

if TYPE_CHECKING:
    from distributed_pretrain.methods.pixelpro.method import Pixelpro


class PixelproConfig(MethodConfig):
    """PixPro with the sizes of LoVT's comparison and without the optional instance loss.

    `match_threshold` is the paper's T, in diagonals of a cell, `propagation_sharpness` its γ.
    `teacher_momentum` is that of the first update; it rises to 1 over the run (see
    `ema_momentum`).
    """

    name: Literal["pixelpro"] = "pixelpro"
    report_encoder: None = None
    projection_dim: PositiveInt = 512
    projection_hidden_dim: PositiveInt = 2048
    projection_norm: Norm = "sync"
    propagation_sharpness: Annotated[float, Field(ge=1)] = 2.0
    match_threshold: PositiveFloat = 0.7
    teacher_momentum: Annotated[float, Field(ge=0, le=1)] = 0.99

    @property
    def reads(self) -> Reads:
        """What it reads of a study."""
        return Reads(views="two_augmentations")

    def build(self, sizes: Sizes) -> Pixelpro:
        """The method."""
        from distributed_pretrain.methods.pixelpro.method import Pixelpro

        return Pixelpro(self, self.image_encoder.build())

"""The settings of Barlow Twins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import PositiveFloat, PositiveInt

from distributed_pretrain.data.settings import Reads
from distributed_pretrain.methods.settings import MethodConfig, Sizes
from distributed_pretrain.models.norms.kinds import Norm

if TYPE_CHECKING:
    from distributed_pretrain.methods.barlow_twins.method import BarlowTwins


class BarlowTwinsConfig(MethodConfig):
    """Two layers project; the paper has three. `redundancy_weight` is eq 1's λ."""

    name: Literal["barlow_twins"] = "barlow_twins"
    report_encoder: None = None
    projection_dim: PositiveInt = 8192
    projection_hidden_dim: PositiveInt = 8192
    projection_norm: Norm | None = "sync"
    redundancy_weight: PositiveFloat = 5e-3

    @property
    def reads(self) -> Reads:
        """What it reads of a study."""
        return Reads(views="two_augmentations")

    def build(self, sizes: Sizes) -> BarlowTwins:
        """The method."""
        from distributed_pretrain.methods.barlow_twins.method import BarlowTwins

        return BarlowTwins(self, self.image_encoder.build())

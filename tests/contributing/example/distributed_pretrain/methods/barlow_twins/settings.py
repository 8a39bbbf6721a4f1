"""The settings of Barlow Twins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import PositiveFloat, PositiveInt

from distributed_pretrain.methods.settings import Sizes, TwoViewsConfig

if TYPE_CHECKING:
    from distributed_pretrain.methods.barlow_twins.method import BarlowTwins


class BarlowTwinsConfig(TwoViewsConfig):
    """Two layers project; the paper has three. `redundancy_weight` is eq 1's λ."""

    name: Literal["barlow_twins"] = "barlow_twins"
    projection_dim: PositiveInt = 8192
    projection_hidden_dim: PositiveInt = 8192
    redundancy_weight: PositiveFloat = 5e-3

    def build(self, sizes: Sizes) -> BarlowTwins:
        """The method."""
        from distributed_pretrain.methods.barlow_twins.method import BarlowTwins

        return BarlowTwins(self, self.image_encoder.build())

"""Barlow Twins: dimensions of two views agree, and not with each other (arXiv:2103.03230)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from distributed_pretrain.batch import Batch
from distributed_pretrain.losses.precision import at_least_float32, full_precision
from distributed_pretrain.methods.barlow_twins.settings import BarlowTwinsConfig
from distributed_pretrain.methods.two_views import TwoViewsMethod, TwoViewsOutputs
from distributed_pretrain.models.image_encoder import ImageEncoder
from distributed_pretrain.ranks import gather_rows


class BarlowTwins(TwoViewsMethod):
    """The encoder, its projection, and eq 1 over the images of all ranks."""

    def __init__(self, config: BarlowTwinsConfig, image_encoder: ImageEncoder) -> None:
        super().__init__(config, image_encoder)
        self.projection = self.head(image_encoder.channels)
        self.term_weights = {"invariance": 1.0, "redundancy": config.redundancy_weight}

    def forward(self, batch: Batch) -> TwoViewsOutputs:
        """Projections of the average-pooled feature maps."""
        first, second = self.project_views(self.image_encoder, self.projection, batch)
        return TwoViewsOutputs(first=first, second=second, sample_mask=batch.sample_mask)

    def batch_terms(self, first: Tensor, second: Tensor, sample_mask: Tensor) -> dict[str, Tensor]:
        """`invariance`, Σ (1 - c_dd)², and `redundancy`, Σ c_de² over d ≠ e."""
        real = gather_rows(sample_mask)
        with full_precision(first):
            first, second = (
                _standardised(at_least_float32(gather_rows(each))[real]) for each in (first, second)
            )
            correlation = first.T @ second / len(first)
            agreement = correlation.diagonal()
            return {
                "invariance": (1 - agreement).square().sum(),
                "redundancy": correlation.square().sum() - agreement.square().sum(),
            }


def _standardised(values: Float[Tensor, "samples dim"]) -> Float[Tensor, "samples dim"]:
    centred = values - values.mean(dim=0)
    return centred / (centred.square().mean(dim=0) + 1e-5).sqrt()

"""Barlow Twins: dimensions of two views agree, and not with each other (arXiv:2103.03230)."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from distributed_pretrain.batch import Batch
from distributed_pretrain.losses.precision import at_least_float32, full_precision
from distributed_pretrain.methods.barlow_twins.settings import BarlowTwinsConfig
from distributed_pretrain.methods.objective import Contrasted, Method, Outputs
from distributed_pretrain.models.heads import Projection
from distributed_pretrain.models.image_encoder import ImageEncoder
from distributed_pretrain.ranks import gather_rows


@dataclass(frozen=True, kw_only=True)
class BarlowTwinsOutputs(Outputs):
    """The projections of both views."""

    first: Float[Tensor, "batch dim"]
    second: Float[Tensor, "batch dim"]


class BarlowTwins(Method):
    """The encoder, its projection, and eq 1 over the images of all ranks."""

    def __init__(self, config: BarlowTwinsConfig, image_encoder: ImageEncoder) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.projection = Projection(
            image_encoder.channels,
            hidden_dim=config.projection_hidden_dim,
            output_dim=config.projection_dim,
            norm=config.projection_norm,
        )
        self.term_weights = {"invariance": 1.0, "redundancy": config.redundancy_weight}

    def forward(self, batch: Batch) -> BarlowTwinsOutputs:
        """Projections of the average-pooled feature maps."""
        assert batch.second_view is not None, "data.views is not two_augmentations"
        first, second = (
            self.projection(
                self.image_encoder(images, batch.sample_mask).mean(dim=(2, 3)), batch.sample_mask
            )
            for images in (batch.images, batch.second_view.images)
        )
        return BarlowTwinsOutputs(first=first, second=second, sample_mask=batch.sample_mask)

    def contrasted(self, outputs: BarlowTwinsOutputs) -> Contrasted:
        """Both projections: dimensions are compared over all samples."""
        return Contrasted(
            rows={
                "first": outputs.first,
                "second": outputs.second,
                "sample_mask": outputs.sample_mask,
            }
        )

    def batch_terms(self, contrasted: Contrasted) -> dict[str, Tensor]:
        """`invariance`, Σ (1 - c_dd)², and `redundancy`, Σ c_de² over d ≠ e."""
        rows = {name: gather_rows(each) for name, each in contrasted.rows.items()}
        with full_precision(rows["first"]):
            first, second = (
                _standardised(at_least_float32(rows[name])[rows["sample_mask"]])
                for name in ("first", "second")
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

"""SimCLR: two views of an image find each other among all others (Chen et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from distributed_pretrain.batch import Batch
from distributed_pretrain.losses.self_supervised import nt_xent_loss
from distributed_pretrain.methods.objective import Contrasted, Method, Outputs
from distributed_pretrain.methods.simclr.settings import SimclrConfig
from distributed_pretrain.models.heads import Projection
from distributed_pretrain.models.image_encoder import ImageEncoder


@dataclass(frozen=True, kw_only=True)
class SimclrOutputs(Outputs):
    """The projections z of both views."""

    first: Float[Tensor, "batch dim"]
    second: Float[Tensor, "batch dim"]


class Simclr(Method):
    """SimCLR's encoder, projection head and loss (eq 1)."""

    def __init__(self, config: SimclrConfig, image_encoder: ImageEncoder) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = image_encoder
        self.projection = Projection(
            image_encoder.channels,
            hidden_dim=config.projection_hidden_dim,
            output_dim=config.projection_dim,
            norm=config.projection_norm,
        )
        self.term_weights = {"nt_xent": 1.0}

    def forward(self, batch: Batch) -> SimclrOutputs:
        """Projections of the average-pooled feature maps.

        All views go through the encoder together, so that batch statistics do not tell the first
        ones from the second.
        """
        assert batch.second_view is not None, "data.views is not two_augmentations"
        views = torch.cat([batch.images, batch.second_view.images])
        view_mask = torch.cat([batch.sample_mask, batch.sample_mask])
        pooled = self.image_encoder(views, view_mask).mean(dim=(2, 3))
        first, second = self.projection(pooled, view_mask).chunk(2)
        return SimclrOutputs(first=first, second=second, sample_mask=batch.sample_mask)

    def contrasted(self, outputs: SimclrOutputs) -> Contrasted:
        """The projections of both views."""
        return Contrasted(
            rows={
                "first": outputs.first,
                "second": outputs.second,
                "sample_mask": outputs.sample_mask,
            }
        )

    def batch_terms(self, contrasted: Contrasted) -> dict[str, Tensor]:
        """`nt_xent`, with the views of all ranks as negatives."""
        term = nt_xent_loss(
            contrasted.rows["first"],
            contrasted.rows["second"],
            temperature=self.config.temperature,
            chunk_size=self.config.chunk_size,
            sample_mask=contrasted.rows["sample_mask"],
        )
        return {"nt_xent": term}

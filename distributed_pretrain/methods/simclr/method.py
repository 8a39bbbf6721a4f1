"""SimCLR: two views of an image find each other among all others (Chen et al. 2020)."""

from __future__ import annotations

from torch import Tensor

from distributed_pretrain.batch import Batch
from distributed_pretrain.losses.self_supervised import nt_xent_loss
from distributed_pretrain.methods.simclr.settings import SimclrConfig
from distributed_pretrain.methods.two_views import TwoViewsMethod, TwoViewsOutputs
from distributed_pretrain.models.image_encoder import ImageEncoder
from distributed_pretrain.models.norms.groups import cat_by_group, parts_by_group


class Simclr(TwoViewsMethod):
    """SimCLR's encoder, projection head and loss (eq 1)."""

    config: SimclrConfig

    def __init__(self, config: SimclrConfig, image_encoder: ImageEncoder) -> None:
        super().__init__(config, image_encoder)
        self.projection = self.head(image_encoder.channels)
        self.term_weights = {"nt_xent": 1.0}

    def forward(self, batch: Batch) -> TwoViewsOutputs:
        """Projections of the average-pooled feature maps.

        All views go through the encoder together, so that batch statistics do not tell the first
        ones from the second.
        """
        view_mask = cat_by_group([batch.sample_mask, batch.sample_mask])
        encoded = cat_by_group([batch.encoded_mask, batch.encoded_mask])
        last_map = self.image_encoder(cat_by_group(self.views(batch)), encoded)
        first, second = parts_by_group(self.project(self.projection, last_map, view_mask), 2)
        return TwoViewsOutputs(first=first, second=second, sample_mask=batch.sample_mask)

    def batch_terms(self, first: Tensor, second: Tensor, sample_mask: Tensor) -> dict[str, Tensor]:
        """`nt_xent`, with the views of all ranks as negatives."""
        term = nt_xent_loss(
            first,
            second,
            temperature=self.config.temperature,
            chunk_size=self.config.chunk_size,
            sample_mask=sample_mask,
        )
        return {"nt_xent": term}

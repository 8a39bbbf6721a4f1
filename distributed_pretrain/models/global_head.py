"""The head of methods that compare whole images with whole reports (ConVIRT, CLIP)."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from distributed_pretrain.models.norms.kinds import Norm
from distributed_pretrain.models.pooling import AttentionPooling
from distributed_pretrain.models.projection import Projection


class GlobalImageHead(nn.Module):
    """One embedding per image: its regions pooled, then projected.

    Regions are averaged, or with `pooling_heads` pooled by that attention (see
    `AttentionPooling`, which raises InputError for a number of heads that does not fit). `norm`
    is that of the projection, None for none.
    """

    def __init__(
        self,
        channels: int,
        *,
        hidden_dim: int,
        output_dim: int,
        norm: Norm | None,
        pooling_heads: int | None = None,
    ) -> None:
        super().__init__()
        self.pooling = None
        if pooling_heads is not None:
            self.pooling = AttentionPooling(channels, pooling_heads)
        self.projection = Projection(
            channels, hidden_dim=hidden_dim, output_dim=output_dim, norm=norm
        )

    def forward(
        self,
        last_map: Float[Tensor, "batch channels rows columns"],
        sample_mask: Bool[Tensor, " batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch rows columns"] | None]:
        """The embeddings, and the pooling's attention (sums to 1), None where it is the mean.

        Rows whose `sample_mask` is False mean nothing and reach no statistic.
        """
        if self.pooling is None:
            return self.projection(last_map.mean(dim=(2, 3)), sample_mask), None
        pooled, weights = self.pooling(last_map.flatten(2).mT)
        return self.projection(pooled, sample_mask), weights.unflatten(1, last_map.shape[2:])

    def embed_regions(
        self, last_map: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch rows columns dim"]:
        """For each region the embedding of an image that has this region alone.

        So a region is compared with a phrase as the loss compares an image with a report. For
        evaluation mode: in training a batch norm would take regions for images.
        """
        regions = last_map.permute(0, 2, 3, 1)
        if self.pooling is not None:
            regions = self.pooling.of_single(regions)
        embedded: Tensor = self.projection(regions)
        return embedded

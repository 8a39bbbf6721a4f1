"""Heads: projections of two linear layers, and what embeds or changes images and their regions."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from distributed_pretrain.losses.precision import full_precision, unit_vectors, zero_where_padded
from distributed_pretrain.models.image_encoder import ImageEncoder, SampleMask
from distributed_pretrain.models.norms.kinds import Norm
from distributed_pretrain.models.norms.rows import row_norm
from distributed_pretrain.models.pooling import AttentionPooling
from distributed_pretrain.models.trunks.base import ImageTokens, Maps


class Projection(nn.Module):
    """Linear - norm - ReLU - Linear, applied to each real row; LoVT's norm is a batch norm.

    For 2048 inputs and the paper's sizes 5,249,536 parameters. Weights start Kaiming-normal
    (fan out), biases at zero. `norm` is the choice of `Norm`; None leaves it out (ConVIRT).
    `output_norm` adds one without scale and shift of its own after the second layer (MGCA).
    SimCLR's and BYOL's projections and BYOL's predictor are this head with other sizes.
    """

    def __init__(
        self,
        input_dim: int,
        *,
        hidden_dim: int = 2048,
        output_dim: int = 512,
        norm: Norm | None = "sync",
        output_norm: bool = False,
    ) -> None:
        super().__init__()
        self.expand = nn.Linear(input_dim, hidden_dim)
        self.norm = None if norm is None else row_norm(norm, hidden_dim)
        self.activation = nn.ReLU(inplace=True)
        self.reduce = nn.Linear(hidden_dim, output_dim)
        assert norm is not None or not output_norm, "which norm?"
        self.output_norm = row_norm(norm, output_dim) if norm and output_norm else None
        if self.output_norm is not None:
            self.output_norm.requires_grad_(False)
        nn.init.kaiming_normal_(self.expand.weight, mode="fan_out", nonlinearity="relu")
        nn.init.kaiming_normal_(self.reduce.weight, mode="fan_out", nonlinearity="linear")
        nn.init.zeros_(self.expand.bias)
        nn.init.zeros_(self.reduce.bias)

    def forward(
        self, values: Float[Tensor, "*rows input_dim"], mask: Bool[Tensor, "*rows"] | None = None
    ) -> Float[Tensor, "*rows output_dim"]:
        """Projected rows; those whose mask is False mean nothing and touch no statistic."""
        if self.norm is None:
            hidden = self.expand(zero_where_padded(values, mask))
        else:
            hidden = self.norm(self.expand(values), mask)
        projected: Tensor = self.reduce(self.activation(hidden))
        return projected if self.output_norm is None else self.output_norm(projected, mask)


class GlobalImageHead(nn.Module):
    """One embedding per image, for methods that compare it whole (ConVIRT, CLIP).

    Its regions are averaged, or with `pooling_heads` pooled by `AttentionPooling`, then projected.
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
        self.pooling = AttentionPooling(channels, pooling_heads) if pooling_heads else None
        self.projection = Projection(
            channels, hidden_dim=hidden_dim, output_dim=output_dim, norm=norm
        )

    def forward(
        self, last_map: Maps, sample_mask: SampleMask | None = None
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch rows columns"] | None]:
        """The embeddings, and the pooling's attention (sums to 1), None where it is the mean.

        Rows whose `sample_mask` is False mean nothing and reach no statistic.
        """
        if self.pooling is None:
            return self.projection(last_map.mean(dim=(2, 3)), sample_mask), None
        pooled, weights = self.pooling(last_map.flatten(2).mT)
        return self.projection(pooled, sample_mask), weights.unflatten(1, last_map.shape[2:])

    def embed_regions(self, last_map: Maps) -> Float[Tensor, "batch rows columns dim"]:
        """For each region the embedding of an image that has this region alone.

        So a region is compared with a phrase as the loss compares an image with a report. For
        evaluation mode: in training a batch norm would take regions for images.
        """
        regions = last_map.permute(0, 2, 3, 1)
        if self.pooling is not None:
            regions = self.pooling.of_single(regions)
        embedded: Tensor = self.projection(regions)
        return embedded


class TwoLevelHeads(nn.Module):
    """Vectors of an image and of its regions, as GLoRIA and LIMITR compare them with words.

    Regions go through a linear layer without bias, as the papers' 1x1 convolution; the image
    through one with bias. 1,573,632 and 786,432 parameters for a ResNet-50 and 768 dimensions.
    Raises InputError for an encoder without regions.
    """

    def __init__(self, image_encoder: ImageEncoder, dim: int) -> None:
        super().__init__()
        self.image = nn.Linear(image_encoder.channels, dim)
        self.region = nn.Linear(image_encoder.region_channels, dim, bias=False)

    def forward(
        self, tokens: ImageTokens
    ) -> tuple[Float[Tensor, "batch dim"], Float[Tensor, "batch rows columns dim"]]:
        """The vectors of the images and of their regions, of any length."""
        return self.image(tokens.image), self.region(tokens.regions)


class PixelPropagation(nn.Module):
    """PixPro's module (Xie et al. 2021, eqs 4-5): each region as a sum over those of its image.

    y_i = Σ_j max(cos(x_i, x_j), 0)^γ g(x_j), γ = `sharpness` (2 in the paper; at least 1) and g a
    linear layer: regions that look alike are smoothed into each other. The weights are not
    normalised, for the loss looks at directions only.
    """

    def __init__(self, dim: int, *, sharpness: float = 2.0) -> None:
        super().__init__()
        self.transform = nn.Linear(dim, dim)
        self.sharpness = sharpness

    def forward(
        self, regions: Float[Tensor, "batch regions dim"]
    ) -> Float[Tensor, "batch regions dim"]:
        """The propagated regions; similarities are taken in at least float32."""
        transformed = self.transform(regions)
        with full_precision(regions):
            directions = unit_vectors(regions)
            similarity = (directions @ directions.mT).clamp(min=0).pow(self.sharpness)
        propagated: Tensor = similarity.to(transformed.dtype) @ transformed
        return propagated

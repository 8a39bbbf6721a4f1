"""PixPro's pixel propagation module (Xie et al. 2021)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from distributed_pretrain.losses.precision import full_precision, unit_vectors


class PixelPropagation(nn.Module):
    """Each region as a sum over all regions of its image, weighted by how alike they are (eqs 4-5).

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

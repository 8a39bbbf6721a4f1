"""Projection heads into the joint space of images and reports."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from distributed_pretrain.models.masked_batch_norm import MaskedBatchNorm


class Projection(nn.Module):
    """Linear - batch norm - ReLU - Linear, applied to each real row independently.

    For 2048 inputs and the paper's sizes 5,249,536 parameters. Weights start Kaiming-normal
    (fan out), biases at zero. `sync` shares the norm's statistics between ranks.
    """

    def __init__(
        self, input_dim: int, *, hidden_dim: int = 2048, output_dim: int = 512, sync: bool = True
    ) -> None:
        super().__init__()
        self.expand = nn.Linear(input_dim, hidden_dim)
        self.norm = MaskedBatchNorm(hidden_dim, sync=sync)
        self.activation = nn.ReLU(inplace=True)
        self.reduce = nn.Linear(hidden_dim, output_dim)
        nn.init.kaiming_normal_(self.expand.weight, mode="fan_out", nonlinearity="relu")
        nn.init.kaiming_normal_(self.reduce.weight, mode="fan_out", nonlinearity="linear")
        nn.init.zeros_(self.expand.bias)
        nn.init.zeros_(self.reduce.bias)

    def forward(
        self, values: Float[Tensor, "*rows input_dim"], mask: Bool[Tensor, "*rows"] | None = None
    ) -> Float[Tensor, "*rows output_dim"]:
        """Projected rows; those whose mask is False mean nothing and touch no statistic."""
        projected: Tensor = self.reduce(self.activation(self.norm(self.expand(values), mask)))
        return projected

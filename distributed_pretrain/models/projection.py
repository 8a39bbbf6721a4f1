"""Projection heads into the joint space of images and reports."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from distributed_pretrain.models.norms import Norm, row_norm


class Projection(nn.Module):
    """Linear - norm - ReLU - Linear, applied to each real row; LoVT's norm is a batch norm.

    For 2048 inputs and the paper's sizes 5,249,536 parameters. Weights start Kaiming-normal
    (fan out), biases at zero. `norm` is the choice of `Norm`.
    """

    def __init__(
        self,
        input_dim: int,
        *,
        hidden_dim: int = 2048,
        output_dim: int = 512,
        norm: Norm = "sync",
    ) -> None:
        super().__init__()
        self.expand = nn.Linear(input_dim, hidden_dim)
        self.norm = row_norm(norm, hidden_dim)
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

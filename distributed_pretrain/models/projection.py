"""Projection and prediction heads: two linear layers with or without norms."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from distributed_pretrain.losses.precision import zero_where_padded
from distributed_pretrain.models.norms.choice import row_norm
from distributed_pretrain.models.norms.kinds import Norm


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

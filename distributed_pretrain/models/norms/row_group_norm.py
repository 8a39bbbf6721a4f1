"""Group normalisation of single rows, for heads that must not see a batch."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor, nn

from distributed_pretrain.losses.precision import (
    at_least_float32,
    full_precision,
    zero_where_padded,
)

# Wu and He (ECCV 2018): 32 groups, or 16 channels a group.
_MOST_GROUPS = 32
_FEWEST_CHANNELS_A_GROUP = 16


class RowGroupNorm(nn.GroupNorm):
    """Each row normalised over groups of its own channels, so that no row sees another.

    Up to 32 groups that divide `dim`, of at least 16 channels each: a row has no positions
    besides, and a group of a single value would always become 0.
    """

    def __init__(self, dim: int, *, eps: float = 1e-5) -> None:
        most = min(_MOST_GROUPS, dim // _FEWEST_CHANNELS_A_GROUP)
        groups = max((g for g in range(1, most + 1) if dim % g == 0), default=1)
        super().__init__(groups, dim, eps=eps)

    def forward(
        self, values: Float[Tensor, "*rows dim"], mask: Bool[Tensor, "*rows"] | None = None
    ) -> Float[Tensor, "*rows dim"]:
        """The normalised rows, in the dtype of `values`.

        Rows whose mask is False come out finite, mean nothing and get no gradient.
        """
        with full_precision(values):
            rows = zero_where_padded(at_least_float32(values), mask)
            normalised = super().forward(rows.reshape(-1, self.num_channels))
            return normalised.view(rows.shape).to(values.dtype)

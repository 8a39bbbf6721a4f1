"""Where a region lies on its grid, as a fixed vector that is added to the region's own."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from data_shards.errors import InputError

_LONGEST_WAVE = 10_000.0

# X columns, Y rows, K wave lengths, D = 4 K dim.


class GridPositions(nn.Module):
    """Adds LIMITR's fixed 2-D sine and cosine of a region's column x and row y, both from 0.

    [sin(x ω), cos(x ω), sin(y ω), cos(y ω)] with ω_k = 10000^(-k / (K - 1)), k = 0 .. K - 1, for
    4 K dimensions. Chest images look alike from patient to patient, so that a place means much the
    same in each. Nothing is learnt. Raises InputError unless `dim` is a multiple of 4, at least 8.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        if dim % 4 or dim < 8:
            raise InputError(
                f"method.position=true: sine and cosine of x and y cannot fill {dim} dimensions: "
                "choose a report encoder whose hidden size is a multiple of 4, or "
                "method.position=false"
            )
        self.dim = dim

    def forward(
        self, regions: Float[Tensor, "batch rows columns {self.dim}"]
    ) -> Float[Tensor, "batch rows columns {self.dim}"]:
        """The regions with their positions, in at least float32."""
        _, rows, columns, _ = regions.shape
        return regions + grid_positions(rows, columns, self.dim, device=regions.device).to(
            torch.promote_types(regions.dtype, torch.float32)
        )


def grid_positions(
    rows: int, columns: int, dim: int, *, device: torch.device | None = None
) -> Float[Tensor, "rows columns dim"]:
    """The vectors that `GridPositions` adds, in float64."""
    waves = dim // 4
    exponents_K = torch.arange(waves, dtype=torch.float64, device=device) / (waves - 1)
    frequencies_K = _LONGEST_WAVE**-exponents_K

    def along(length: int) -> Tensor:
        places = torch.arange(length, dtype=torch.float64, device=device)
        angles = places[:, None] * frequencies_K
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    of_columns_YXD = along(columns)[None].expand(rows, -1, -1)
    of_rows_YXD = along(rows)[:, None].expand(-1, columns, -1)
    return torch.cat([of_columns_YXD, of_rows_YXD], dim=2)

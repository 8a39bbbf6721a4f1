"""Images that tell half a pixel from another, and how close two ways of resampling come."""

from __future__ import annotations

import torch
from torch import Tensor

SIDE = 96
# float32 sums of some hundred terms in [0, 1], added in another order.
TOLERANCE = 2e-5


def textured(*shape: int, seed: int = 0) -> Tensor:
    """Images in [0, 1] with edges and fine structure, where a wrong half pixel shows."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(shape[0], 1, 6, 6, generator=random)
    smooth = torch.nn.functional.interpolate(coarse, shape[1:], mode="nearest")[:, 0]
    return 0.7 * smooth + 0.3 * torch.rand(shape, generator=random)

"""How many tokens a text encoder computes for those that reports have, by their lengths alone."""

from __future__ import annotations

from statistics import mean
from typing import NamedTuple

import numpy as np
import torch

from distributed_pretrain.packing import Packing

_DRAWS = 40
_SHORTEST, _LONGEST = 3, 512


class Lengths(NamedTuple):
    """Log-normal numbers of tokens, of this mean and standard deviation."""

    mean: float
    deviation: float


# Assumed, as no report of theirs may lie here.
LIKE_MIMIC = Lengths(90, 45)


def computed_to_real(lengths: Lengths, *, micro_batch: int) -> float:
    """Tokens of packed rows over those of the reports in them, the mean of 40 micro-batches."""
    generator = np.random.default_rng(0)
    variance = np.log1p((lengths.deviation / lengths.mean) ** 2)
    centre = np.log(lengths.mean) - variance / 2
    shares: list[float] = []
    for _ in range(_DRAWS):
        drawn = generator.lognormal(centre, np.sqrt(variance), micro_batch)
        tokens = drawn.round().clip(_SHORTEST, _LONGEST).astype(int).tolist()
        packing = Packing.of(tokens, max(tokens), torch.device("cpu"))
        shares.append(packing.tokens / sum(tokens))
    return mean(shares)

"""How alike the regions of one image are, by their distance: LoVT's Figure 3."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from distributed_pretrain.batch import Batch
from distributed_pretrain.measures.base import Context, FeatureOutputs, Measure, real_rows

PERCENTILES = 101  # from 0 to 100
STUDIES = 100


@dataclass(frozen=True)
class SimilarityAtDistance:
    """Cosines of all pairs of regions at one distance, over all images.

    `distance` is that on the grid over sqrt(rows^2 + columns^2), rounded to 0.1. `percentiles` of
    the cosines run from 0 (the least) to 100 (the greatest), so that 25, 50 and 75 are quartiles.
    """

    distance: float
    pairs: int
    mean: float
    percentiles: tuple[float, ...]

    @property
    def quartiles(self) -> tuple[float, ...]:
        """First quartile, median, third quartile."""
        return self.percentiles[25:76:25]


class RegionSimilarity(Measure):
    """Figure 3 of the first `STUDIES` studies; after `compute` in `by_distance`."""

    by_distance: tuple[SimilarityAtDistance, ...] = ()

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._maps: list[Tensor] = []

    def update(self, batch: Batch, outputs: FeatureOutputs) -> None:
        """Keep the first feature maps."""
        left = STUDIES - sum(map(len, self._maps))
        self._maps.append(real_rows(outputs.feature_map, batch.sample_mask)[: max(0, left)])

    def compute(self) -> dict[str, float]:
        """No number; `by_distance` is there from now on."""
        self.by_distance = similarity_by_distance(torch.cat(self._maps))
        return {}


@torch.no_grad()
def similarity_by_distance(
    features: Float[Tensor, "images channels rows columns"],
) -> tuple[SimilarityAtDistance, ...]:
    """Cosines of the pairs of distinct regions of each image, from near to far (paper, Fig. 3).

    `features` are the encoder's region representations y, before any projection. Regions are
    compared within their image only. Empty for a grid of one region. A region of zeros has the
    cosine 0 to every other.
    """
    rows, columns = features.shape[2:]
    first, second = torch.triu_indices(rows * columns, rows * columns, offset=1)
    down = first // columns - second // columns
    across = first % columns - second % columns
    distance = (down.square() + across.square()).double().sqrt()
    tenths = (10 * distance / math.hypot(rows, columns)).round().long()
    regions = normalize(features.double().flatten(2), dim=1)
    cosines = torch.einsum("icr,ics->irs", regions, regions)[:, first, second]
    at_distance = {tenth: cosines[:, tenths == tenth] for tenth in tenths.unique().tolist()}
    return tuple(
        SimilarityAtDistance(
            distance=tenth / 10,
            pairs=values.numel(),
            mean=values.mean().item(),
            # torch.quantile refuses more than 2^24 values.
            percentiles=tuple(np.percentile(values.cpu().numpy(), range(PERCENTILES)).tolist()),
        )
        for tenth, values in at_distance.items()
    )

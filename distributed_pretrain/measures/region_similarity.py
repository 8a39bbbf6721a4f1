"""How alike the regions of one image are, by their distance: LoVT's Figure 3."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.functional import normalize

from distributed_pretrain.batch import Batch
from distributed_pretrain.measures.base import (
    Context,
    FeatureOutputs,
    Measure,
    Picture,
    real_rows,
)
from distributed_pretrain.measures.pictures import DOTS_PER_INCH, pixels_of, plain_axes

PERCENTILES = 101  # from 0 to 100
STUDIES = 100
# Of the distance between two violins; the one with the most pairs is that wide.
WIDEST_VIOLIN = 0.09


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

    picture_notes: ClassVar[Mapping[str, str]] = {
        "region_similarity": "LoVT's Figure 3: cosines of two regions of one image by their "
        "distance, a violin as wide as there are pairs, with its quartiles. Regions that are "
        "told apart are less alike the farther apart they lie."
    }
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

    def pictures(self) -> dict[str, Picture]:
        """`region_similarity`, where there are two regions."""
        if not self.by_distance:
            return {}
        figure = Figure(figsize=(6.4, 3.4), dpi=DOTS_PER_INCH, layout="constrained")
        axes = figure.add_subplot()
        draw_violins(axes, self.by_distance)
        axes.set_ylabel("cosine of two regions")
        return {"region_similarity": pixels_of(figure)}


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


def draw_violins(axes: Axes, similarity: Sequence[SimilarityAtDistance]) -> None:
    """Violins as wide as there are pairs, with dashed quartiles, of the stored percentiles."""
    # A density needs values that differ.
    by_distance = [each for each in similarity if each.percentiles[-1] > each.percentiles[0]]
    if by_distance:
        most = max(each.pairs for each in by_distance)
        parts = axes.violinplot(
            [each.percentiles for each in by_distance],
            [each.distance for each in by_distance],
            widths=[WIDEST_VIOLIN * each.pairs / most for each in by_distance],
            quantiles=[[0.25, 0.5, 0.75]] * len(by_distance),
        )
        parts["cquantiles"].set_linestyle("--")
    medians = [(each.distance, each.quartiles[1]) for each in similarity]
    axes.plot(*zip(*medians, strict=True), color="black", linewidth=0.8, alpha=0.6)
    axes.set_xlabel("distance / diagonal of the grid")
    axes.grid(axis="y", alpha=0.3)
    plain_axes(axes)

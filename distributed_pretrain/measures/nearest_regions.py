"""Which regions of other patients' images are most like a region: what an encoder calls alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from distributed_pretrain.batch import Batch
from distributed_pretrain.measures.base import (
    Context,
    FeatureOutputs,
    Measure,
    Picture,
    real_records,
    real_rows,
)
from distributed_pretrain.measures.pictures import displayed, panels_in_rows, pixels_of

STUDIES = 200
NEAREST = 5
# Where in the image is asked, as fractions of its height and width: a patient's right lies left.
ASKED = {
    "right upper lung": (0.35, 0.3),
    "left upper lung": (0.35, 0.7),
    "right lower lung": (0.6, 0.3),
    "left lower lung": (0.6, 0.7),
}


@dataclass(frozen=True)
class Region:
    """A cell of an image's grid, by numbers, and its cosine to the region that was asked for."""

    image: int
    row: int
    column: int
    cosine: float = 1.0


class NearestRegions(Measure):
    """For a region of each lung zone, the nearest of other patients among the first `STUDIES`.

    Regions are the encoder's representations y, before any projection, as in `RegionSimilarity`.
    """

    picture_notes: ClassVar[Mapping[str, str]] = {
        "nearest_regions": "Left a region of an image, and beside it the most similar regions of "
        "other patients' images, one an image, with their cosine. An encoder that knows anatomy "
        "finds the same place; one that knows findings the same finding."
    }

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._maps: list[Tensor] = []
        self._images: list[NDArray[np.floating]] = []
        self._patients: list[str] = []

    def update(self, batch: Batch, outputs: FeatureOutputs) -> None:
        """Keep the first feature maps and images."""
        left = max(0, STUDIES - len(self._patients))
        self._maps.append(real_rows(outputs.feature_map, batch.sample_mask)[:left])
        self._images.extend(displayed(batch.images[batch.sample_mask][:left]))
        self._patients += [each.patient_id for each in real_records(batch)[:left]]

    def pictures(self) -> dict[str, Picture]:
        """`nearest_regions`, where there are two patients."""
        if len(set(self._patients)) < 2:
            return {}
        maps = torch.cat(self._maps)
        rows, columns = maps.shape[2:]
        asked, found = [], []
        for number, (name, (down, across)) in enumerate(ASKED.items()):
            image = number * len(maps) // len(ASKED)
            query = Region(image, int(down * rows), int(across * columns))
            asked.append((name, query))
            found.append(nearest_regions(maps, query, self._patients))
        return {"nearest_regions": self._drawn(asked, found, (rows, columns))}

    def _drawn(
        self,
        asked: Sequence[tuple[str, Region]],
        found: Sequence[Sequence[Region]],
        grid: tuple[int, int],
    ) -> Picture:
        columns = 1 + max(map(len, found))
        count = columns * len(asked)
        figure, panels = panels_in_rows(count, columns, captions_inches=0.25 * len(asked))
        for number, (name, query) in enumerate(asked):
            line = panels[number * columns : (number + 1) * columns]
            captions = [name, *(f"cosine {each.cosine:.2f}" for each in found[number])]
            regions = [query, *found[number]]
            for axes, region, caption in zip(line, regions, captions, strict=False):
                image = self._images[region.image]
                axes.imshow(image, cmap="gray", vmin=0, vmax=1)
                height, width = image.shape[0] / grid[0], image.shape[1] / grid[1]
                corner = (region.column * width - 0.5, region.row * height - 0.5)
                colour = "tab:orange" if region is query else "tab:cyan"
                axes.add_patch(
                    Rectangle(corner, width, height, fill=False, color=colour, linewidth=1.6)
                )
                axes.set_title(caption, fontsize=7, loc="left")
        return pixels_of(figure)


def nearest_regions(
    maps: Float[Tensor, "images channels rows columns"], query: Region, patients: Sequence[str]
) -> list[Region]:
    """The up to `NEAREST` images of other patients with a region most like the query's, and it.

    By the cosine, the nearest first; of each image its nearest region alone.
    """
    own = normalize(maps[query.image, :, query.row, query.column], dim=0)
    cosines = torch.einsum("c,icrs->irs", own, normalize(maps, dim=1)).flatten(1)
    best, cell = cosines.max(dim=1)
    others = [number for number, patient in enumerate(patients) if patient != patients[query.image]]
    ranked = sorted(others, key=lambda number: -best[number].item())[:NEAREST]
    return [
        Region(number, *divmod(int(cell[number]), maps.shape[3]), best[number].item())
        for number in ranked
    ]

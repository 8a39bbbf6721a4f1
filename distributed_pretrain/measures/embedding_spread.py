"""How the embeddings of a split lie on their sphere: matched ones close, all of them apart."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from distributed_pretrain.batch import Batch
from distributed_pretrain.measures.base import Context, ImageTextMeasure, on_host
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.methods.image_text import ImageTextOutputs
from distributed_pretrain.ranks import gather_rows

ALIGNMENT = Metric("alignment", "alignment", better="low", unit="number")
KINDS = ("image", "report")
UNIFORMITY = {
    kind: Metric(f"uniformity_{kind}", f"uniformity of {kind}s", better="low", unit="number")
    for kind in KINDS
}
STD = {
    kind: Metric(f"embedding_std_{kind}", f"std of {kind}s' embeddings", unit="number")
    for kind in KINDS
}
# Rows of the matrix of distances at a time.
_CHUNK = 1024


class Spread(ImageTextMeasure):
    """Alignment and uniformity (Wang and Isola, 2020) of unit vectors, and their deviation.

    Alignment is the mean squared distance of an image and its own report; uniformity, of images
    and of reports, is log mean exp(-2 d^2) over all pairs of different studies: 0 where all are
    one point. The deviation is that of each dimension over the studies, the mean of all, times
    sqrt(dimensions): near 1 where they cover the sphere, 0 where they collapsed.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._vectors: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Alignment, then the others of images and of reports."""
        return (ALIGNMENT, *UNIFORMITY.values(), *STD.values())

    def update(self, batch: Batch, outputs: ImageTextOutputs) -> None:
        """Keep the vectors of all ranks."""
        mask = gather_rows(batch.sample_mask)
        for kind, rows in (("image", outputs.images.image), ("report", outputs.reports.report)):
            vectors = normalize(on_host(gather_rows(rows)[mask]).double(), dim=1)
            self._vectors[kind].append(vectors)

    def compute(self) -> dict[str, float]:
        """The numbers; empty with less than two studies."""
        vectors = {kind: torch.cat(each) for kind, each in self._vectors.items() if each}
        if not vectors or len(vectors["image"]) < 2:
            return {}
        images, reports = (vectors[kind] for kind in KINDS)
        found = {ALIGNMENT.name: (images - reports).square().sum(dim=1).mean().item()}
        for kind, each in vectors.items():
            found[UNIFORMITY[kind].name] = uniformity(each)
            deviations = each.std(dim=0, correction=0)
            found[STD[kind].name] = deviations.mean().item() * each.shape[1] ** 0.5
        return found


def uniformity(vectors: Float[Tensor, "rows dim"], *, t: float = 2.0) -> float:
    """log mean exp(-t |u - v|^2) over the pairs of different rows, which are unit vectors."""
    rows, total = len(vectors), 0.0
    for part in vectors.split(_CHUNK):
        total += torch.exp(-t * (2 - 2 * part @ vectors.T)).sum().item()
    # Each row with itself, at distance 0, is no pair.
    return math.log((total - rows) / (rows * (rows - 1)))

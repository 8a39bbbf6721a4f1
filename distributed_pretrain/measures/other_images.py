"""What the losses of regions learn from the image: each once more with another study's."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from distributed_pretrain.batch import Batch
from distributed_pretrain.measures.base import Context, ImageTextMeasure
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.methods.image_text import ImageTextMethod, ImageTextOutputs
from distributed_pretrain.methods.objective import Objective
from distributed_pretrain.ranks import gather_rows, mean_over_ranks, own_rows

TOLD = "_from_image"


def of_term(term: str) -> tuple[Metric, Metric]:
    """A term with the images of other studies, and by how much its own are better."""
    return (
        Metric(f"{term}_other_image", f"{term} of another image", unit="number", better="low"),
        Metric(f"{term}{TOLD}", f"{term}: what the image tells", unit="number"),
    )


class OtherImages(ImageTextMeasure):
    """Every local term with each report beside the image of the next study of the batch.

    `pair_other_image` is the term `pair` so, and `pair_from_image` by how much that is above the
    term of the own images: what it learns from them. A term for which that stays near 0 tells
    parts of a report apart without looking (LoVT's own local losses do), and has no business in a
    claim about regions. Batches of one study have no other image and do not count. Ranks exchange
    their images' embeddings.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._terms = self.method.local_terms
        self._sums = torch.zeros(2, len(self._terms), dtype=torch.float64)
        self._count = 0.0

    @classmethod
    def applies(cls, objective: Objective) -> bool:
        """Where a term compares regions with parts of reports."""
        return isinstance(objective, ImageTextMethod) and bool(objective.local_terms)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Two for each local term."""
        return tuple(metric for term in self._terms for metric in of_term(term))

    def update(self, batch: Batch, outputs: ImageTextOutputs) -> None:
        """Add the batch's terms, by its real samples."""
        mask = batch.sample_mask
        every_mask = gather_rows(mask)
        real = float(every_mask.sum())
        if real < 2:
            return
        order = next_real_rows(every_mask)[own_rows(len(mask))]
        others = outputs.images.map_tensors(lambda rows: gather_rows(rows)[order])
        # What the host knows of the own images says nothing of these.
        others = others.map_values(lambda _: (), (tuple,))
        for row, images in enumerate((outputs.images, others)):
            loss = self.method.loss(self.method.paired(images, outputs.reports, mask))
            terms = torch.stack([loss[name].detach() for name in self._terms])
            self._sums[row] += real * mean_over_ranks(terms).cpu().double()
        self._count += real

    def compute(self) -> dict[str, float]:
        """The means; empty where no batch has two studies."""
        if not self._count:
            return {}
        own, other = (self._sums / self._count).tolist()
        figures: dict[str, float] = {}
        for name, own_term, other_term in zip(self._terms, own, other, strict=True):
            of_others, told = of_term(name)
            figures |= {of_others.name: other_term, told.name: other_term - own_term}
        return figures


def next_real_rows(sample_mask: Bool[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """For each real row the next real one, the first for the last; others stay where they are."""
    order = torch.arange(len(sample_mask), device=sample_mask.device)
    order[sample_mask] = order[sample_mask].roll(-1)
    return order

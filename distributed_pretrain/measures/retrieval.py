"""Cross-modal retrieval: how often an image finds its report, and a report its image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from data_shards.records.study import StudyRecord
from distributed_pretrain.batch import Batch, join_rows
from distributed_pretrain.losses.external import gather_tokens
from distributed_pretrain.measures.base import (
    Context,
    ImageTextMeasure,
    Picture,
    on_host,
    real_records,
)
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.measures.pictures import similarity_matrix_picture
from distributed_pretrain.methods.image_text import (
    ImageEmbeddings,
    ImageTextOutputs,
    ReportEmbeddings,
    Similarity,
)
from distributed_pretrain.ranks import gather_rows

DIRECTIONS = ("image_to_report", "report_to_image")
RANKS = (1, 5, 10)
RECALLS = tuple(Metric(f"recall_at_{k}", f"R@{k}", headline=k == 5) for k in RANKS)
RECALL_AT_1, RECALL_AT_5, RECALL_AT_10 = RECALLS
METRICS = (
    *(
        Metric(f"{direction}_{each.name}", f"{each.title}, {direction.replace('_', ' ')}")
        for direction in DIRECTIONS
        for each in RECALLS
    ),
    *RECALLS,
    Metric("recall_sum", "sum of recalls", unit="number"),
)
PICTURED_STUDIES = 32


class Retrieval(ImageTextMeasure):
    """Recalls over the whole split, identical reports as one.

    A thorough one adds those with each report for itself (`ungrouped_...`), and in chunks as
    published figures are (`chunks_...`). After `compute`, `similarity` is that of all images (rows)
    to all reports on the CPU, and `reports` are the sentences of this rank's.
    """

    picture_notes: ClassVar[Mapping[str, str]] = {
        "similarity_matrix": "How alike the first studies' images (rows) and reports (columns) "
        "are: a trained method has a bright diagonal."
    }
    similarity: Similarity

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._images: list[tuple[ImageEmbeddings, Tensor]] = []
        self._reports: list[ReportEmbeddings] = []
        self._groups: list[int] = []
        self.reports: list[tuple[str, ...]] = []

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Recalls of both directions, their means, and the sum."""
        if not self.context.thorough:
            return METRICS
        ways = {"ungrouped": "each report for itself", "chunks": "in chunks"}
        return METRICS + tuple(
            replace(each, name=f"{way}_{each.name}", title=f"{each.title}, {title}", headline=False)
            for way, title in ways.items()
            for each in METRICS
        )

    def update(self, batch: Batch, outputs: ImageTextOutputs) -> None:
        """Keep this rank's images and the reports of all ranks, on the CPU."""
        images, reports = outputs.images, outputs.reports
        if not self.method.compares_local:
            images = ImageEmbeddings(image=images.image, regions=images.regions[:, :0, :0])
            local, real = reports.local[:, :0], reports.local_mask[:, :0]
            reports = ReportEmbeddings(report=reports.report, local=local, local_mask=real)
        mask = gather_rows(batch.sample_mask)
        hashes = torch.tensor([self._hash(record) for record in batch.records], device=mask.device)
        self._images.append((images.map_tensors(on_host), batch.sample_mask.cpu()))
        self._reports.append(reports.map_tensors(lambda rows: on_host(gather_tokens(rows)[mask])))
        self._groups += gather_rows(hashes)[mask].tolist()
        self.reports += [self.context.sentences(record) for record in real_records(batch)]

    def compute(self) -> dict[str, float]:
        """The recalls; empty without batches."""
        if not self._images:
            return {}
        self.similarity = self._similarity_of_all()
        found = {"": retrieval_metrics(self.similarity, groups=self._groups)}
        if self.context.thorough:
            found["ungrouped_"] = retrieval_metrics(self.similarity)
            found["chunks_"] = retrieval_in_chunks(self.similarity)
        return {way + name: value for way, each in found.items() for name, value in each.items()}

    def pictures(self) -> dict[str, Picture]:
        """The similarities of the first studies."""
        first = self.similarity[:PICTURED_STUDIES, :PICTURED_STUDIES]
        return {"similarity_matrix": similarity_matrix_picture(first.numpy())}

    @torch.no_grad()
    def _similarity_of_all(self) -> Similarity:
        """Every rank compares its own images with all reports; all get the whole matrix."""
        device = self.context.device
        all_reports = join_rows(self._reports).to(device)
        rows = []
        for images, mask in self._images:
            own = self.method.similarity(images.to(device), all_reports).float()
            rows.append(gather_rows(own)[gather_rows(mask.to(device))].cpu())
        return torch.cat(rows)

    def _hash(self, record: StudyRecord) -> int:
        """Equal for identical reports, on every rank; 64 bits of SHA-256."""
        text = "\n".join(self.context.sentences(record))
        return int.from_bytes(sha256(text.encode()).digest()[:8], "little", signed=True)


def retrieval_metrics(
    similarity: Similarity, *, groups: Sequence[int] | None = None, chunk_size: int = 2048
) -> dict[str, float]:
    """Recalls as fractions; row i of `similarity` is image i, column i its report.

    `image_to_report_recall_at_k`, `report_to_image_recall_at_k`, their mean `recall_at_k`, and
    `recall_sum`, LIMITR's R_sum: the sum over both directions and all k of `RANKS` (at most 6;
    LIMITR prints it times 100).

    Samples of equal `groups` have identical reports: any of them is a right answer to the other.
    The rank of the best right answer counts the wrong ones that do not score lower: a tie is a
    miss, a constant similarity finds nothing and NaN never hits. Right answers do not push each
    other down. Without groups only sample i answers i. Memory beside the matrix is
    O(chunk_size x samples). Raises ValueError for a matrix that is not square or has no rows.
    """
    samples = len(similarity)
    labels = torch.arange(samples) if groups is None else torch.tensor(groups)
    if similarity.shape != (samples, samples) or samples == 0 or len(labels) != samples:
        raise ValueError(
            f"a similarity of {tuple(similarity.shape)} and {len(labels)} groups: there must be as "
            "many images (rows) as reports (columns) and groups, and at least one"
        )
    labels = labels.to(similarity.device)
    metrics: dict[str, float] = {}
    for name, queries in zip(DIRECTIONS, (similarity, similarity.T), strict=True):
        ranks = _ranks(queries, labels, chunk_size)
        for k in RANKS:
            metrics[f"{name}_recall_at_{k}"] = (ranks < k).double().mean().item()
    recall_sum = sum(metrics.values())
    for k in RANKS:
        metrics[f"recall_at_{k}"] = sum(metrics[f"{name}_recall_at_{k}"] for name in DIRECTIONS) / 2
    return metrics | {"recall_sum": recall_sum}


def retrieval_in_chunks(similarity: Similarity, *, size: int = 1000) -> dict[str, float]:
    """The mean recalls over consecutive chunks of `size` samples, as published figures are.

    Sample i alone answers i. Samples beyond the last whole chunk are left out; empty when there
    are fewer than `size`.
    """
    chunks = [
        retrieval_metrics(similarity[start : start + size, start : start + size])
        for start in range(0, len(similarity) - size + 1, size)
    ]
    return {
        name: sum(chunk[name] for chunk in chunks) / len(chunks)
        for name in (chunks[0] if chunks else ())
    }


def _ranks(similarity: Similarity, labels: Int[Tensor, " images"], chunk_size: int) -> Tensor:
    """For each query how many wrong answers do not score lower than its best right one."""
    ranks = []
    for scores, own in zip(similarity.split(chunk_size), labels.split(chunk_size), strict=True):
        right = own[:, None] == labels[None, :]
        best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
        ranks.append((~(scores < best) & ~right).sum(dim=1))
    return torch.cat(ranks)

"""Cross-modal retrieval: how often an image finds its report, and a report its image."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

DIRECTIONS = ("image_to_report", "report_to_image")
RANKS = (1, 5, 10)
RETRIEVAL_METRICS = (
    *(f"{direction}_recall_at_{k}" for direction in DIRECTIONS for k in RANKS),
    *(f"recall_at_{k}" for k in RANKS),
    "recall_sum",
)


def retrieval_metrics(
    similarity: Float[Tensor, "images reports"],
    *,
    groups: Sequence[Hashable] | None = None,
    ks: Sequence[int] = RANKS,
    chunk_size: int = 2048,
) -> dict[str, float]:
    """Recalls as fractions; row i of `similarity` is image i, column i its report.

    `image_to_report_recall_at_k`, `report_to_image_recall_at_k`, their mean `recall_at_k`, and
    `recall_sum`, LIMITR's R_sum: the sum over both directions and all `ks` (at most 2 len(ks);
    LIMITR prints it times 100).

    Samples of equal `groups` have identical reports: any of them is a right answer to the other.
    The rank of the best right answer counts the wrong ones that do not score lower: a tie is a
    miss, a constant similarity finds nothing and NaN never hits. Right answers do not push each
    other down. Without groups only sample i answers i. Memory beside the matrix is
    O(chunk_size x samples). Raises ValueError for a matrix that is not square or has no rows.
    """
    samples = len(similarity)
    if similarity.shape != (samples, samples) or samples == 0:
        raise ValueError(
            f"a similarity of {tuple(similarity.shape)} must have as many images (rows) as reports "
            "(columns), and at least one"
        )
    labels = _labels(groups, samples).to(similarity.device)
    metrics: dict[str, float] = {}
    for name, queries in zip(DIRECTIONS, (similarity, similarity.T), strict=True):
        ranks = _ranks(queries, labels, chunk_size)
        for k in ks:
            metrics[f"{name}_recall_at_{k}"] = (ranks < k).double().mean().item()
    recall_sum = sum(metrics.values())
    for k in ks:
        metrics[f"recall_at_{k}"] = sum(metrics[f"{name}_recall_at_{k}"] for name in DIRECTIONS) / 2
    metrics["recall_sum"] = recall_sum
    return metrics


def retrieval_in_chunks(
    similarity: Float[Tensor, "samples samples"], *, size: int = 1000
) -> dict[str, float]:
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


def _ranks(
    similarity: Float[Tensor, "queries answers"],
    labels: Int[Tensor, " answers"],
    chunk_size: int,
) -> Int[Tensor, " queries"]:
    """For each query how many wrong answers do not score lower than its best right one."""
    ranks = []
    for start in range(0, len(similarity), chunk_size):
        rows = slice(start, start + chunk_size)
        scores = similarity[rows]
        right = labels[rows, None] == labels[None, :]
        best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
        ranks.append((~(scores < best) & ~right).sum(dim=1))
    return torch.cat(ranks)


def _labels(groups: Sequence[Hashable] | None, samples: int) -> Int[Tensor, " samples"]:
    if groups is None:
        return torch.arange(samples)
    if len(groups) != samples:
        raise ValueError(f"{len(groups)} groups for {samples} samples")
    numbers: dict[Hashable, int] = {}
    return torch.tensor([numbers.setdefault(group, len(numbers)) for group in groups])

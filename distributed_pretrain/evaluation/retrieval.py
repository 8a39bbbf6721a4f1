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
    image: Float[Tensor, "samples dim"],
    report: Float[Tensor, "samples dim"],
    *,
    groups: Sequence[Hashable] | None = None,
    ks: Sequence[int] = RANKS,
    chunk_size: int = 2048,
) -> dict[str, float]:
    """Recalls as fractions, by cosine similarity over the whole set.

    `image_to_report_recall_at_k`, `report_to_image_recall_at_k`, their mean `recall_at_k`, and
    `recall_sum`, LIMITR's R_sum: the sum over both directions and all `ks` (at most 2 len(ks);
    LIMITR prints it times 100).

    Row i of both matrices is sample i. Samples of equal `groups` have identical reports: any of
    them is a right answer to the other. The rank of the best right answer counts the wrong ones
    that do not score lower: a tie is a miss, a constant embedding finds nothing and NaN never
    hits. Right answers do not push each other down. Without groups only sample i answers i.
    Memory is O(chunk_size x samples). Raises ValueError for matrices of different shape or no
    samples.
    """
    if image.shape != report.shape or len(image) == 0:
        raise ValueError(
            f"image {tuple(image.shape)} and report {tuple(report.shape)} embeddings must be of "
            "one shape, with at least one row"
        )
    labels = _labels(groups, len(image)).to(image.device)
    image = torch.nn.functional.normalize(image, dim=1)
    report = torch.nn.functional.normalize(report, dim=1)
    metrics: dict[str, float] = {}
    for name, queries, answers in zip(DIRECTIONS, (image, report), (report, image), strict=True):
        ranks = _ranks(queries, answers, labels, chunk_size)
        for k in ks:
            metrics[f"{name}_recall_at_{k}"] = (ranks < k).double().mean().item()
    recall_sum = sum(metrics.values())
    for k in ks:
        metrics[f"recall_at_{k}"] = sum(metrics[f"{name}_recall_at_{k}"] for name in DIRECTIONS) / 2
    metrics["recall_sum"] = recall_sum
    return metrics


def _ranks(
    queries: Float[Tensor, "samples dim"],
    answers: Float[Tensor, "samples dim"],
    labels: Int[Tensor, " samples"],
    chunk_size: int,
) -> Int[Tensor, " samples"]:
    """For each query how many wrong answers do not score lower than its best right one."""
    ranks = []
    for start in range(0, len(queries), chunk_size):
        rows = slice(start, start + chunk_size)
        similarity = queries[rows] @ answers.T
        right = labels[rows, None] == labels[None, :]
        best = similarity.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
        ranks.append((~(similarity < best) & ~right).sum(dim=1))
    return torch.cat(ranks)


def _labels(groups: Sequence[Hashable] | None, samples: int) -> Int[Tensor, " samples"]:
    if groups is None:
        return torch.arange(samples)
    if len(groups) != samples:
        raise ValueError(f"{len(groups)} groups for {samples} samples")
    numbers: dict[Hashable, int] = {}
    return torch.tensor([numbers.setdefault(group, len(numbers)) for group in groups])

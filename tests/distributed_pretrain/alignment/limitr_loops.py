"""LIMITR's pair similarity by the paper, in loops over pairs and tokens."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from distributed_pretrain.alignment.limitr import LimitrSimilarity
from distributed_pretrain.alignment.variants import Variant

DIM, IMAGES, REPORTS, REGIONS, WORDS = 6, 3, 4, 5, 7


def similarity_of(variant: Variant, chunk_size: int | None = None) -> LimitrSimilarity:
    torch.manual_seed(0)
    return LimitrSimilarity(DIM, variant, chunk_size).double().eval()


# The longest is neither first nor last, and a hole is not padding at the end.
WORD_MASK = torch.arange(WORDS) < torch.tensor([[3], [7], [1], [5]])
WORD_MASK[3, 1] = False
REGION_MASK = torch.arange(REGIONS) < torch.tensor([[2], [5], [4]])


def scores_to_attention(scores_QK: Tensor, variant: Variant) -> Tensor:
    """Row q is what the q-th that attends gives to each that is attended."""
    if variant == "paper":
        return torch.stack([torch.softmax(4 * row, dim=0) for row in scores_QK])
    over_queries = torch.stack([torch.softmax(column, dim=0) for column in scores_QK.T]).T
    return torch.stack([torch.softmax(4 * row, dim=0) for row in over_queries])


def naive_attention(queries: Tensor, keys: Tensor, variant: Variant) -> Tensor:
    scores = torch.stack(
        [
            torch.stack(
                [
                    F.cosine_similarity(query, key, dim=0) if variant == "paper" else query @ key
                    for key in keys
                ]
            )
            for query in queries
        ]
    )
    return scores_to_attention(scores, variant)


def naive_weights(module: LimitrSimilarity, alignments: list[Tensor]) -> Tensor:
    mean = torch.stack(alignments).mean(dim=0)
    if module.variant == "paper":
        logits = [module.query(mean) @ module.key(a) / DIM**0.5 for a in alignments]
    else:
        gate = torch.tanh(module.global_gate(mean))
        logits = [module.score(torch.tanh(module.local_gate(a)) * gate)[0] for a in alignments]
    return torch.softmax(torch.stack(logits), dim=0)


def naive_direction(
    module: LimitrSimilarity, queries: Tensor, keys: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What each query sees, its weight q, and the aggregated alignment of the pair."""
    attention = naive_attention(queries, keys, module.variant)
    attended = [
        sum((w * k for w, k in zip(row, keys, strict=True)), keys[0] * 0) for row in attention
    ]
    products = [m * query for m, query in zip(attended, queries, strict=True)]
    alignments = [product / product.norm() for product in products]
    weights = naive_weights(module, alignments)
    values = [module.value(a) if module.variant == "paper" else a for a in alignments]
    total = torch.stack([q * value for q, value in zip(weights, values, strict=True)]).sum(dim=0)
    if module.variant == "authors":
        total = total / total.norm()
    return torch.stack(attended), weights, total


def naive(
    module: LimitrSimilarity,
    regions: Tensor,
    words: Tensor,
    word_mask: Tensor = WORD_MASK,
    region_mask: Tensor = REGION_MASK,
) -> tuple[Tensor, Tensor]:
    sides: list[list[Tensor]] = [[], []]
    for image, real_regions in zip(regions, region_mask, strict=True):
        for report, real_words in zip(words, word_mask, strict=True):
            v, t = image[real_regions], report[real_words]
            sides[0].append(module.report_head(naive_direction(module, t, v)[2]).sigmoid()[0])
            sides[1].append(module.image_head(naive_direction(module, v, t)[2]).sigmoid()[0])
    report_side, image_side = (torch.stack(side).view(len(regions), len(words)) for side in sides)
    return report_side, image_side

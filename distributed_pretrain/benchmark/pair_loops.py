"""The authors' way of LIMITR and GLoRIA: one report after the other against all images.

References for the benchmark and the tests, plain and faithful: the report is repeated for every
image, each direction makes its own products, and automatic differentiation keeps everything. The
pad masks are right, though (the authors' repeat them in the wrong order), and dropout is off.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from distributed_pretrain.alignment.limitr import LimitrSimilarity

# B images, Q vectors that attend (words or regions), K vectors that are attended, D dim.

SHARPNESS = 4.0


def limitr_loop(
    module: LimitrSimilarity, regions: Tensor, words: Tensor, word_mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Both similarities of the `authors` variant, images x reports."""
    assert module.variant == "authors", "the loop is the public code's"
    report_columns, image_columns = [], []
    for report_words, mask in zip(words, word_mask, strict=True):
        repeated = report_words[mask].repeat(len(regions), 1, 1)
        for columns, head, queries, keys in (
            (report_columns, module.report_head, repeated, regions),
            (image_columns, module.image_head, regions, repeated),
        ):
            attended = _attend(queries, keys)
            aligned = F.normalize(attended * queries, dim=-1)
            columns.append(torch.sigmoid(head(_aggregate(module, aligned))))
    return torch.cat(report_columns, dim=1), torch.cat(image_columns, dim=1)


def gloria_loop(regions: Tensor, words: Tensor, word_mask: Tensor) -> Tensor:
    """log Σ_j e^{5 cos(m_j, t_j)} of every pair, images x reports."""
    columns = []
    for report_words, mask in zip(words, word_mask, strict=True):
        repeated = report_words[mask].repeat(len(regions), 1, 1)
        attended = _attend(repeated, regions)
        cosine = F.cosine_similarity(repeated.flatten(0, 1), attended.flatten(0, 1))
        exponentials = (5 * cosine.view(repeated.shape[:2])).exp()
        columns.append(exponentials.sum(dim=1, keepdim=True).log())
    return torch.cat(columns, dim=1)


def _attend(queries_BQD: Tensor, keys_BKD: Tensor) -> Tensor:
    """What each query sees: a softmax of the raw scores over the queries, then over the keys."""
    scores_BKQ = keys_BKD @ queries_BQD.mT
    over_queries_BKQ = scores_BKQ.softmax(dim=2)
    attention_BQK = (over_queries_BKQ.mT.contiguous() * SHARPNESS).softmax(dim=2)
    return attention_BQK @ keys_BKD


def _aggregate(module: LimitrSimilarity, aligned_BQD: Tensor) -> Tensor:
    local_BQD = module.local_gate(aligned_BQD).tanh()
    mean_BD = aligned_BQD.mean(dim=1)
    gate_BQD = module.global_gate(mean_BD).tanh()[:, None].repeat(1, aligned_BQD.shape[1], 1)
    weights_BQ = module.score(local_BQD * gate_BQD)[..., 0].softmax(dim=1)
    return F.normalize((weights_BQ[..., None] * aligned_BQD).sum(dim=1), dim=-1)

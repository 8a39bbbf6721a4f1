"""The authors' way of LIMITR and GLoRIA: one report after the other against all images.

References for the benchmark and the tests, plain and faithful: the report is repeated for every
image, vectors lie in columns and are copied into rows and back, each direction makes its own
scores, lengths and cosines are spelled out, and automatic differentiation keeps everything. The
pad masks are right, though (the authors' repeat them in the wrong order), and dropout is off.

Held against the public code (`local_similarities` of gefend/LIMITR, `local_loss` of
marshuang80/gloria) on the same 16 images and reports of 361 regions and 97 words: the same loss, as
many bytes kept for backward, 2,796 and 609 MiB. Dropout would add 689 MiB to LIMITR's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from distributed_pretrain.alignment.limitr import LimitrSimilarity

# B images, R regions, W words of one report, Q vectors that attend, K that are attended, D dim.

SHARPNESS = 4.0
WORD_SHARPNESS = 5.0
EPSILON = 1e-8


def limitr_loop(
    module: LimitrSimilarity, regions: Tensor, words: Tensor, word_mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Both similarities of the `authors` variant, images x reports."""
    assert module.variant == "authors", "the loop is the public code's"
    regions_BDR = regions.mT.contiguous()
    regions_BRD = regions_BDR.mT.contiguous()
    report_columns: list[Tensor] = []
    image_columns: list[Tensor] = []
    for report_words, mask in zip(words, word_mask, strict=True):
        words_BDW = report_words[mask].T.contiguous().repeat(len(regions), 1, 1)
        words_BWD = words_BDW.mT.contiguous()
        for columns, head, aligned in (
            (report_columns, module.report_head, _attended(words_BDW, regions_BDR) * words_BWD),
            (image_columns, module.image_head, _attended(regions_BDR, words_BDW) * regions_BRD),
        ):
            columns.append(torch.sigmoid(head(_aggregated(module, _unit(aligned)))))
    return torch.cat(report_columns, dim=1), torch.cat(image_columns, dim=1)


def gloria_loop(regions: Tensor, words: Tensor, word_mask: Tensor) -> Tensor:
    """log Σ_j e^{5 cos(m_j, t_j)} of every pair, images x reports."""
    regions_BDR = regions.mT.contiguous()
    columns = []
    for report_words, mask in zip(words, word_mask, strict=True):
        words_BDW = report_words[mask].T.contiguous().repeat(len(regions), 1, 1)
        words_BWD = words_BDW.mT.contiguous()
        attended_BWD = _attended(words_BDW, regions_BDR)
        lengths_BW = words_BWD.norm(dim=-1) * attended_BWD.norm(dim=-1)
        cosine_BW = (words_BWD * attended_BWD).sum(dim=-1) / lengths_BW.clamp(min=EPSILON)
        columns.append((WORD_SHARPNESS * cosine_BW).exp().sum(dim=1, keepdim=True).log())
    return torch.cat(columns, dim=1)


def _attended(queries_BDQ: Tensor, keys_BDK: Tensor) -> Tensor:
    """What each query sees, in rows: a softmax of the scores over the queries, then the keys."""
    scores_BKQ = keys_BDK.mT.contiguous() @ queries_BDQ
    over_queries_BQK = scores_BKQ.softmax(dim=-1).mT.contiguous()
    attention_BQK = (over_queries_BQK * SHARPNESS).softmax(dim=-1)
    return (keys_BDK @ attention_BQK.mT.contiguous()).mT.contiguous()


def _aggregated(module: LimitrSimilarity, aligned_BQD: Tensor) -> Tensor:
    local_BQD = module.local_gate(aligned_BQD).tanh()
    gate_BD = module.global_gate(aligned_BQD.mean(dim=1)).tanh()
    gate_BQD = gate_BD[:, None].repeat(1, aligned_BQD.shape[1], 1)
    weights_BQ = module.score(local_BQD * gate_BQD)[..., 0].softmax(dim=1)
    return _unit((weights_BQ[..., None] * aligned_BQD).sum(dim=1))


def _unit(vectors: Tensor) -> Tensor:
    return vectors / (vectors.pow(2).sum(dim=-1, keepdim=True).sqrt() + EPSILON)

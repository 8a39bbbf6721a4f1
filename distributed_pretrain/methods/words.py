"""Reports as GLoRIA and LIMITR embed them: the whole, and its words."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from distributed_pretrain.alignment.pairwise.products import as_factors
from distributed_pretrain.batch import ReportTokens
from distributed_pretrain.methods.image_text import ReportEmbeddings, of_real_samples
from distributed_pretrain.models.pooling import mean_of_tokens, sum_word_pieces
from distributed_pretrain.models.report_encoder import ReportEncoder


def embed_report_words(
    encoder: ReportEncoder,
    report: ReportTokens,
    sample_mask: Bool[Tensor, " batch"] | None,
    *,
    last_layers: int,
) -> ReportEmbeddings:
    """Reports and their words, CLS first.

    A token is the sum of its hidden states in the `last_layers` layers, a word the sum of its
    pieces; SEP is no word. Padded words are zeros; there are as many columns as tokens less one,
    whatever the reports say. A report is the mean of its real tokens, CLS and SEP among them. The
    authors divide the same sum by the padded length, which no cosine sees. Raises InputError when
    there are fewer layers.
    """
    token_mask, word_index = report.token_mask, report.word_index
    tokens = encoder.embed_tokens(report.token_ids, token_mask, last_layers=last_layers)
    columns = token_mask.shape[1]
    is_first = torch.arange(columns, device=token_mask.device) == 0
    with_first = torch.where(word_index >= 0, word_index + 1, -1)
    with_first = torch.where(is_first & token_mask, 0, with_first)
    words, word_mask = sum_word_pieces(tokens, with_first, words=columns - 1)
    return ReportEmbeddings(
        report=mean_of_tokens(tokens, token_mask),
        local=as_factors(words),
        local_mask=of_real_samples(word_mask, sample_mask),
    )

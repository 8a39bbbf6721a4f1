"""Reports as GLoRIA and LIMITR embed them: the whole, and its words."""

from __future__ import annotations

from jaxtyping import Bool
from torch import Tensor

from distributed_pretrain.alignment.pairwise.products import as_factors
from distributed_pretrain.batch import ReportTokens
from distributed_pretrain.methods.image_text import ReportEmbeddings, of_real_samples
from distributed_pretrain.models.global_and_local import embed_words
from distributed_pretrain.models.report_encoder import ReportEncoder


def embed_report_words(
    encoder: ReportEncoder,
    report: ReportTokens,
    sample_mask: Bool[Tensor, " batch"] | None,
    *,
    last_layers: int,
) -> ReportEmbeddings:
    """Reports and their words, CLS first (see `embed_words`)."""
    whole, words, word_mask = embed_words(
        encoder, report.token_ids, report.token_mask, report.word_index, last_layers=last_layers
    )
    return ReportEmbeddings(
        report=whole,
        local=as_factors(words),
        local_mask=of_real_samples(word_mask, sample_mask),
    )

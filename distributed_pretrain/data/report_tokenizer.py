"""What the loader asks of a tokenizer, and the one of methods that read no reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from distributed_pretrain.batch import ReportTokens


class ReportTokenizer(Protocol):
    """Turns the sentences of reports into tokens; called from several threads."""

    @property
    def vocabulary_size(self) -> int:
        """Tokens known, special ones included."""

    def encode(self, reports: Sequence[Sequence[str]]) -> ReportTokens:
        """The sentences of each report, padded to the longest report."""


class NoReports:
    """Every report without a token: for methods that learn from images only."""

    vocabulary_size = 0

    def encode(self, reports: Sequence[Sequence[str]]) -> ReportTokens:
        """As many empty reports."""
        index = torch.zeros(len(reports), 0, dtype=torch.long)
        return ReportTokens(
            token_ids=index,
            token_mask=index.bool(),
            sentence_index=index,
            sentence_mask=index.bool(),
            word_index=index,
        )

"""The tokenizer of a run, kept in its folder: the report encoder's own, or one trained there."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from data_shards.records.policies import select_sentences
from distributed_pretrain.data.report_tokenizer import NoReports, ReportTokenizer
from distributed_pretrain.data.shards import BadSampleError, ShardSplit
from distributed_pretrain.data.tokenization import SentenceTokenizer, train_wordpiece


def build_tokenizer(
    folder: Path, training: ShardSplit, *, source: str | None, vocabulary_size: int
) -> None:
    """Put a tokenizer into `folder`: that of `source` (a hub name or a folder), or a new one.

    A new one is a WordPiece over the sentences of the training split. `folder` appears whole or
    not at all.
    """
    partial = folder.with_suffix(".partial")
    for remains in (partial, folder):
        shutil.rmtree(remains, ignore_errors=True)
    if source is not None:
        SentenceTokenizer.load(source).save(partial)
    else:
        texts: list[str] = []
        for position in range(len(training)):
            with contextlib.suppress(BadSampleError):  # training meets it again, and names it
                report = training.read(position).record.report
                texts.extend(select_sentences(report, training.policy))
        train_wordpiece(texts, partial, vocabulary_size=vocabulary_size)
    partial.rename(folder)


def load_tokenizer(folder: Path, *, reads_reports: bool, max_tokens: int) -> ReportTokenizer:
    """The tokenizer in `folder`; one that gives empty reports when none are read."""
    if not reads_reports:
        return NoReports()
    return SentenceTokenizer.load(folder, max_tokens=max_tokens)

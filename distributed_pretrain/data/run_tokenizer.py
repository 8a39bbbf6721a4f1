"""The tokenizer of a run, kept in its folder: the report encoder's own, or one trained there."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from data_shards.records.policies import select_sentences
from distributed_pretrain.data.shards import BadSampleError, ShardSplit
from distributed_pretrain.data.tokenization import NoReports, ReportTokenizer, SentenceTokenizer


def build_tokenizer(
    folder: Path, training: ShardSplit, make: Callable[[Iterable[str], Path], None]
) -> None:
    """Have `make` put a tokenizer of the sentences of the training split into a folder.

    Those are read as it asks for them. `folder` appears whole or not at all.
    """
    partial = folder.with_suffix(".partial")
    for remains in (partial, folder):
        shutil.rmtree(remains, ignore_errors=True)
    make(_sentences(training), partial)
    partial.rename(folder)


def load_tokenizer(folder: Path, *, reads_reports: bool, max_tokens: int) -> ReportTokenizer:
    """The tokenizer in `folder`; one that gives empty reports when none are read."""
    if not reads_reports:
        return NoReports()
    return SentenceTokenizer.load(folder, max_tokens=max_tokens)


def _sentences(split: ShardSplit) -> Iterator[str]:
    for position in range(len(split)):
        with contextlib.suppress(BadSampleError):  # training meets it again, and names it
            yield from select_sentences(split.read(position).record.report, split.policy)

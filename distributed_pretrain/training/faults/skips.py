"""Batches without an update: named in the run folder, and in the end a reason to stop."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from data_shards.errors import RunError
from data_shards.files.json_lines import JsonLines, rank_writer


class NonFiniteError(RunError):
    """Losses or gradients are NaN or infinite too often: the message says where and what to do."""


@dataclass(frozen=True)
class SkippedBatch:
    """One rank's part of a skipped batch.

    `keys` are the samples whose own outputs were not finite on this rank or, where no rank can
    tell (a shared norm spreads them, or only the gradient overflowed), all of its share;
    `not_finite` the terms.
    """

    step: int
    rank: int
    samples_consumed: int
    not_finite: list[str]
    keys: list[str]


def forget_skipped_after(skipped: JsonLines, samples_consumed: int) -> None:
    """Drop the lines that a run going on from `samples_consumed` writes again."""
    skipped.keep(lambda line: bool(line["samples_consumed"] <= samples_consumed))


def name_skipped(skipped: JsonLines, batch: SkippedBatch) -> None:
    """Write a batch down, each rank in its own file."""
    skipped.append(asdict(batch), writer=rank_writer(batch.rank))

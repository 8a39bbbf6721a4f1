"""Batches without an update: named in `skipped.jsonl`, and in the end a reason to stop."""

from __future__ import annotations

import fcntl
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from data_shards.records.manifest import write_text_atomically


class NonFiniteError(RuntimeError):
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


@dataclass(frozen=True)
class SkippedBatches:
    """`skipped.jsonl`: one JSON line a batch and rank."""

    path: Path

    def cut_back(self, samples_consumed: int) -> None:
        """Drop the lines that a run going on from `samples_consumed` writes again."""
        if self.path.exists():
            lines = [line for line in self.path.read_text().splitlines() if line.endswith("}")]
            kept = [x for x in lines if json.loads(x)["samples_consumed"] <= samples_consumed]
            write_text_atomically(self.path, "".join(line + "\n" for line in kept))

    def add(self, batch: SkippedBatch) -> None:
        """Append one line; ranks share the file."""
        with self.path.open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(json.dumps(asdict(batch)) + "\n")

"""Samples that cannot be read: counted, named, and replaced by others."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np

from data_shards.errors import InputError
from data_shards.files.json_lines import JsonLines
from data_shards.records.study import Split

# Keeps replacements apart from the other random streams of (seed, epoch, sample).
_REPLACEMENT_STREAM = 0xBAD


class BadSampleError(ValueError):
    """One sample cannot be read: `key`, its tar, and the reason in one line."""

    def __init__(self, key: str, shard: str, reason: str) -> None:
        super().__init__(f"{shard}: {key}: {reason}")
        self.key = key
        self.shard = shard
        self.reason = reason


@dataclass
class Quarantine:
    """The unreadable among the `samples` of a split, also as `lines` of a run where it has them.

    A line has key, shard, split, reason, and the `samples_consumed` after the batch that met the
    sample first. A `writer` writes each of its samples once, counts those of the others too, and a
    resumed run goes on with the lines it finds. Without lines each counts its own.
    """

    split: Split
    samples: int
    max_bad_fraction: float
    lines: JsonLines | None = None
    writer: str = ""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._met = self._written()

    def add(self, error: BadSampleError, *, samples_consumed: int) -> None:
        """Note one bad sample. Raises InputError once too large a share of the split is bad."""
        with self._lock:
            if error.key not in self._met:
                written = self._written()
                self._met |= {error.key, *written}
                if self.lines is not None and error.key not in written:
                    line = {
                        "key": error.key,
                        "shard": error.shard,
                        "split": self.split,
                        "reason": error.reason,
                        "samples_consumed": samples_consumed,
                    }
                    self.lines.append(line, writer=self.writer)
            bad = len(self._met)
        if bad > self.max_bad_fraction * self.samples:
            where = f" (listed in {self.lines.path})" if self.lines is not None else ""
            raise InputError(
                f"{bad} of {self.samples} samples of split {self.split!r} cannot be read{where}, "
                f"more than max_bad_fraction={self.max_bad_fraction} allows; the last: {error}: "
                "run `python -m data_shards verify` and copy or build the damaged shards again"
            )

    def _written(self) -> set[str]:
        """The keys that anyone has written down."""
        lines = self.lines.read() if self.lines is not None else []
        return {line["key"] for line in lines if line["split"] == self.split}


def replacement_position(of: tuple[int, int, int, int], *, samples: int) -> int:
    """Which sample stands in for an unreadable one, a function of (seed, epoch, position, attempt).

    So it is the same on every rank and after a resume.
    """
    state = np.random.SeedSequence((*of, _REPLACEMENT_STREAM))
    return int(np.random.Generator(np.random.Philox(state)).integers(samples))

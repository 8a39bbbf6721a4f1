"""What happens to samples that cannot be read: replaced, counted, named, and in the end fatal."""

from __future__ import annotations

import fcntl
import json
import threading
from pathlib import Path
from typing import TextIO

import numpy as np

from data_shards.errors import InputError
from data_shards.records.study import Split
from distributed_pretrain.data.shards import BadSampleError

# Keeps replacements apart from the other random streams of (seed, epoch, sample).
_REPLACEMENT_STREAM = 0xBAD


class Quarantine:
    """The unreadable samples of one split, also as lines of `quarantine.jsonl` when given a path.

    Every key has one line (key, shard, split, reason, and the `samples_consumed` after the batch
    that met it first) however often, and by however many ranks, it is met; a resumed run goes on
    with the file it finds.
    """

    def __init__(
        self, path: Path | None, *, split: Split, samples: int, max_bad_fraction: float
    ) -> None:
        self._path = path
        self._split = split
        self._samples = samples
        self._max_bad_fraction = max_bad_fraction
        self._lock = threading.Lock()
        self._first_met: dict[str, int] = {}
        if path is not None and path.exists():
            with path.open(encoding="utf-8") as file:
                self._first_met = self._lines_in(file)

    def add(self, error: BadSampleError, *, samples_consumed: int) -> None:
        """Note one bad sample. Raises InputError once too large a share of the split is bad."""
        with self._lock:
            if error.key not in self._first_met:
                self._first_met[error.key] = samples_consumed
                if self._path is not None:
                    self._append(self._path, error, samples_consumed)
            bad = len(self._first_met)
        if bad > self._max_bad_fraction * self._samples:
            where = f" (listed in {self._path})" if self._path is not None else ""
            raise InputError(
                f"{bad} of {self._samples} samples of split {self._split!r} cannot be read{where}, "
                f"more than max_bad_fraction={self._max_bad_fraction} allows; the last: {error}: "
                "run `python -m data_shards verify` and copy or build the damaged shards again"
            )

    def _append(self, path: Path, error: BadSampleError, samples_consumed: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+", encoding="utf-8") as file:
            # Ranks of one node or of a shared folder write the same file.
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            on_disk = self._lines_in(file)
            self._first_met |= on_disk
            if error.key not in on_disk:
                line = {
                    "key": error.key,
                    "shard": error.shard,
                    "split": self._split,
                    "reason": error.reason,
                    "samples_consumed": samples_consumed,
                }
                file.write(json.dumps(line) + "\n")

    def _lines_in(self, file: TextIO) -> dict[str, int]:
        # A killed run may have left half a line.
        lines = [json.loads(line) for line in file if line.endswith("}\n")]
        return {
            line["key"]: line["samples_consumed"] for line in lines if line["split"] == self._split
        }


def replacement_position(
    *, seed: int, epoch: int, position: int, attempt: int, samples: int
) -> int:
    """Which sample stands in for an unreadable one: the same on every rank and after a resume."""
    state = np.random.SeedSequence((seed, epoch, position, attempt, _REPLACEMENT_STREAM))
    return int(np.random.Generator(np.random.Philox(state)).integers(samples))

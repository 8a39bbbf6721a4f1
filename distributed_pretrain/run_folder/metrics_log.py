"""`metrics.jsonl`: one line a step or evaluation, the same numbers as TensorBoard's."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TextIO

from data_shards.errors import InputError
from data_shards.files.json_lines import JsonLines

TIMING_SUFFIXES = ("_per_second", "_seconds")
TIMING_NAMES = frozenset({"memory_bytes", "data_wait_share", "mfu"})


def is_timing(name: str) -> bool:
    """Whether a field may differ between two otherwise identical runs."""
    return name in TIMING_NAMES or name.endswith(TIMING_SUFFIXES)


class MetricsLog:
    """Appends lines to `metrics.jsonl`, each complete on disk before the next step.

    Opening it at `resume_step` cuts every line of a later step (and a line that a kill left
    half-written) off, atomically.
    """

    def __init__(self, path: Path, *, resume_step: int) -> None:
        JsonLines(path).keep(lambda line: line.get("step", math.inf) <= resume_step)
        self._path = path
        self._file: TextIO = path.open("a", encoding="utf-8")

    def write(self, step: int, split: str, values: dict[str, float]) -> None:
        """Append one line: `step`, `split`, then `values` in their order.

        Raises InputError when it cannot be written (a full disk, say).
        """
        try:
            self._file.write(json.dumps({"step": step, "split": split, **values}) + "\n")
            self._file.flush()
        except OSError as error:
            raise InputError(
                f"{self._path}: not written ({error.strerror}): free some space, then the same "
                "command goes on from the last checkpoint"
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

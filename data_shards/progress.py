"""Progress on stderr: a bar in a terminal, a plain line every few seconds in a log."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from types import TracebackType
from typing import Self

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Counts `unit` up to `total`, with rate and time left. Use as a context manager."""

    def __init__(self, what: str, *, total: int, unit: str) -> None:
        self.what = what
        self.total = total
        self.unit = unit
        self.done = 0
        self._started = time.monotonic()
        self._last_line = self._started
        terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, desc=what, unit=f" {unit}") if terminal else None

    def advance(self, count: int = 1) -> None:
        """Note that `count` more are done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
            return
        now = time.monotonic()
        if self.done and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            rate = self.done / (now - self._started)
            left = timedelta(seconds=round((self.total - self.done) / rate))
            counted = f"{self.done:,} of {self.total:,} {self.unit}"
            print(f"{self.what}: {counted}, {rate:.1f}/s, {left} left", file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

"""Progress of a training run: a bar in a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm


class TrainingProgress:
    """Shows the step, the loss and the rate on stderr; silent on ranks other than 0."""

    def __init__(
        self, *, first_step: int, total_steps: int, interval_seconds: float, enabled: bool
    ) -> None:
        self._enabled = enabled
        self._interval = interval_seconds
        self._total = total_steps
        self._updates = 0
        self._started = time.monotonic()
        self._last_line = self._started - interval_seconds
        self._bar: Any = None
        if enabled and sys.stderr.isatty():
            self._bar = tqdm(total=total_steps, initial=first_step, unit="step", dynamic_ncols=True)

    def update(self, step: int, *, loss: float, pairs_per_second: float) -> None:
        """Report that a step has ended, and that the run stands at `step`."""
        self._updates += 1
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {loss:.4f}, {pairs_per_second:.0f} pairs/s", False)
            self._bar.update(step - self._bar.n)
            return
        now = time.monotonic()
        if self._enabled and (now - self._last_line >= self._interval or step == self._total):
            self._last_line = now
            # Not by the steps: a run that went back has made more than its number says.
            left = (now - self._started) / self._updates * (self._total - step)
            self.say(
                f"step {step}/{self._total}  loss {loss:.4f}  {pairs_per_second:.0f} pairs/s  "
                f"{tqdm.format_interval(left)} left"
            )

    def say(self, line: str) -> None:
        """Print a line without disturbing the bar."""
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        elif self._enabled:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal clean."""
        if self._bar is not None:
            self._bar.close()

"""What a run tells: numbers in `metrics.jsonl` and TensorBoard, pictures, and its progress."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data_shards.errors import InputError, warn
from data_shards.files.atomic import remedy_of
from data_shards.files.json_lines import JsonLines
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.metrics import is_metrics_line
from distributed_pretrain.training.events import EventFile


class Recorder:
    """Writes a run's numbers and pictures; one per run, on rank 0.

    Both records are cut back to `resume_step`: what a killed run wrote after its last checkpoint
    is written again.
    """

    def __init__(self, run: RunFolder, *, resume_step: int) -> None:
        self._run = run
        self._open(resume_step)

    def _open(self, resume_step: int) -> None:
        metrics, lines = self._run.metrics, self._run.read_metrics()
        JsonLines(metrics, is_metrics_line).keep(lambda line: line["step"] <= resume_step)
        reached = max((step for line in lines if (step := line["step"]) <= resume_step), default=0)
        if reached < resume_step:
            warn(
                f"{metrics}: has nothing between the steps {reached} and {resume_step}, "
                "which the checkpoint has behind it: they are not written again",
            )
        self._metrics = metrics.open("a", encoding="utf-8")
        self._events = EventFile(self._run.tensorboard, purge_step=resume_step + 1)

    def cut_back(self, step: int) -> None:
        """Forget what was recorded after `step`, as opening the records there does."""
        self.close()
        self._open(step)

    def record(self, step: int, split: str, values: dict[str, float]) -> None:
        """One line of `metrics.jsonl`, at once on disk, and a point on each curve `<split>/<name>`.

        Raises InputError when the line cannot be written (a full disk, say).
        """
        try:
            self._metrics.write(json.dumps({"step": step, "split": split, **values}) + "\n")
            self._metrics.flush()
        except OSError as error:
            raise InputError(
                f"{self._run.metrics}: not written ({error.strerror}): {remedy_of(error)}, then "
                "the same command goes on from the last checkpoint"
            ) from error
        self._events.add_scalars(step, {f"{split}/{name}": each for name, each in values.items()})

    def note_restarts(self, step: int, restarts: int) -> None:
        """How often the run has been started again, at the step it goes on from."""
        self._events.add_scalars(step + 1, {"run/restarts": restarts})

    def show(self, step: int, pictures: Mapping[str, NDArray[np.uint8]]) -> None:
        """Pictures (height, width, 3) by name."""
        for name, picture in pictures.items():
            self._events.add_picture(step, f"pictures/{name}", picture)

    def flush(self) -> None:
        """Push everything to disk: before a checkpoint that will not write it again."""
        self._events.flush()

    def close(self) -> None:
        """Flush and close both records."""
        self._events.close()
        with contextlib.suppress(OSError):  # a full disk: the write before said so
            self._metrics.close()


@dataclass
class TrainingProgress:
    """Shows step, loss and rate on stderr, in a bar or in lines; silent on ranks other than 0."""

    first_step: int
    total_steps: int
    interval_seconds: float
    enabled: bool

    def __post_init__(self) -> None:
        self._updates = 0
        self._started = time.monotonic()
        self._last_line = self._started - self.interval_seconds
        self._bar = tqdm(
            total=self.total_steps,
            initial=self.first_step,
            unit="step",
            dynamic_ncols=True,
            disable=None if self.enabled else True,  # None: where stderr is no terminal
        )

    def update(self, step: int, values: Mapping[str, float]) -> None:
        """Report that a step has ended with these numbers, and that the run stands at `step`."""
        self._updates += 1
        loss, rate = values.get("total", math.nan), values["pairs_per_second"]
        self._bar.set_postfix_str(f"loss {loss:.4f}, {rate:.0f} pairs/s", False)
        self._bar.update(step - self._bar.n)
        now = time.monotonic()
        due = now - self._last_line >= self.interval_seconds or step == self.total_steps
        if self._bar.disable and self.enabled and due:
            self._last_line = now
            # Not by the steps: a run that went back has made more than its number says.
            left = (now - self._started) / self._updates * (self.total_steps - step)
            self.say(
                f"step {step}/{self.total_steps}  loss {loss:.4f}  {rate:.0f} pairs/s  "
                f"{tqdm.format_interval(left)} left"
            )

    def say(self, line: str) -> None:
        """Print a line without disturbing the bar."""
        if self.enabled:
            self._bar.write(line, file=sys.stderr)

    def close(self) -> None:
        """Leave the terminal clean."""
        self._bar.close()

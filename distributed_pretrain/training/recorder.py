"""What a run tells: the same numbers in `metrics.jsonl` and TensorBoard; pictures and restarts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.metrics_log import MetricsLog


class Recorder:
    """Writes a run's numbers and pictures; one per run, on rank 0.

    Both records are cut back to `resume_step`: what a killed run wrote after its last checkpoint
    is written again.
    """

    def __init__(self, run: RunFolder, *, resume_step: int) -> None:
        self._run = run
        self._open(resume_step)

    def _open(self, resume_step: int) -> None:
        self._log = MetricsLog(self._run.metrics, resume_step=resume_step)
        self._writer = SummaryWriter(log_dir=str(self._run.tensorboard), purge_step=resume_step + 1)

    def cut_back(self, step: int) -> None:
        """Forget what was recorded after `step`, as opening the records there does."""
        self.close()
        self._open(step)

    def record(self, step: int, split: str, values: dict[str, float]) -> None:
        """One line of `metrics.jsonl`, and one point on each curve `<split>/<name>`."""
        self._log.write(step, split, values)
        for name, value in values.items():
            self._writer.add_scalar(f"{split}/{name}", value, step)

    def note_restarts(self, step: int, restarts: int) -> None:
        """How often the run has been started again, at the step it goes on from."""
        self._writer.add_scalar("run/restarts", restarts, step + 1)

    def show(self, step: int, pictures: Mapping[str, NDArray[np.uint8]]) -> None:
        """Pictures (height, width, 3) by name."""
        for name, picture in pictures.items():
            self._writer.add_image(f"pictures/{name}", picture, step, dataformats="HWC")

    def flush(self) -> None:
        """Push everything to disk: before a checkpoint that will not write it again."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close both records."""
        self._log.close()
        self._writer.close()

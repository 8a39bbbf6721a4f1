"""The same numbers as `metrics.jsonl`, and pictures, for TensorBoard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """Writes scalars as `<split>/<name>` and pictures as `pictures/<name>`.

    `purge_step` hides what a killed run wrote at later steps than its checkpoint.
    """

    def __init__(self, folder: Path, *, resume_step: int) -> None:
        self._writer = SummaryWriter(
            log_dir=str(folder), purge_step=resume_step + 1 if resume_step else None
        )

    def scalars(self, step: int, split: str, values: dict[str, float]) -> None:
        """One point on each curve."""
        for name, value in values.items():
            self._writer.add_scalar(f"{split}/{name}", value, step)

    def picture(self, step: int, name: str, picture: NDArray[np.uint8]) -> None:
        """One (height, width, 3) picture."""
        self._writer.add_image(f"pictures/{name}", picture, step, dataformats="HWC")

    def text(self, name: str, text: str) -> None:
        """A text panel (the resolved config, say)."""
        self._writer.add_text(name, text)

    def flush(self) -> None:
        """Push everything to disk."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()

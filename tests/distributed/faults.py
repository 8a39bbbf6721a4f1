"""What can go wrong at a given step, done to a real run from inside."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch


def inject(faults: dict[str, Any]) -> None:
    """Change this process's run.

    `signal`: {"number", "rank", "step"}: that rank signals itself before that step.
    `bad_samples`: keys whose training images are NaN.
    `bad_batches`: counts of samples consumed after batches whose every training image is NaN.
    `record`: a folder; each rank writes the keys of its batches to it.
    """
    from distributed_pretrain.batch import Batch
    from distributed_pretrain.methods.image_text import ImageTextMethod, ImageTextOutputs
    from distributed_pretrain.methods.lovt.method import Lovt
    from distributed_pretrain.training.step import Stepper

    forward, step = Lovt.forward, Stepper.step
    bad_samples = frozenset(faults.get("bad_samples", ()))
    bad_batches = frozenset(faults.get("bad_batches", ()))
    poisoned = False

    def faulty_forward(self: ImageTextMethod, batch: Batch) -> ImageTextOutputs:
        bad = torch.tensor([poisoned or key in bad_samples for key in batch.keys]) & self.training
        images = torch.where(bad[:, None, None, None], torch.nan, batch.images)
        return forward(self, replace(batch, images=images))

    def faulty_step(self: Stepper, state: Any, batch: Batch, **options: Any) -> Any:
        nonlocal poisoned
        rank = self.engine.rank
        poisoned = batch.samples_consumed in bad_batches
        if "record" in faults:
            line = json.dumps({"consumed": batch.samples_consumed, "keys": batch.keys})
            with (Path(faults["record"]) / f"rank{rank}.jsonl").open("a") as file:
                file.write(line + "\n")
        sent = faults.get("signal", {})
        if (sent.get("rank"), sent.get("step")) == (rank, state.step + 1):
            os.kill(os.getpid(), signal.Signals(sent["number"]))
        return step(self, state, batch, **options)

    Lovt.forward = faulty_forward  # type: ignore[method-assign]
    Stepper.step = faulty_step  # type: ignore[method-assign]

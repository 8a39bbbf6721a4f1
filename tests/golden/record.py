"""Tiny runs of every method, recorded: what a change of the house must leave as it was.

    python tests/golden/record.py OUTPUT.json      # in the checkout whose code is to run

It speaks to the project by its commands alone, so that it runs in an older checkout too: two
recordings of one machine are equal to the last bit, but for timings.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).parent / "recorded"
METHODS = (
    "lovt",
    "limitr",
    "gloria",
    "mgca",
    "convirt",
    "clip",
    "simclr",
    "byol",
    "pixelpro",
    "chexpert",
    "initial",
)
# What was renamed since they were recorded.
LATER_NAMES = {"initial": "untrained"}
STEPS = 6
TIMINGS = ("memory_bytes", "data_wait_share", "mfu", "padding_share")
COMMON = (
    "seed=1",
    "vocabulary_size=120",
    "data.image_size_px=64",
    "data.global_batch=8",
    "training.epochs=3",
    f"training.max_steps={STEPS}",
    "training.validate_every_steps=3",
    "training.checkpoint_every_steps=3",
    "training.gradient_norms_every_steps=3",
    "training.pictures=false",
    "method.image_encoder.width=0.125",
)
SPECIAL = {
    # Each of the ways through a step is gone at least once.
    "lovt": ("data.augmentation.horizontal_flip=true", "data.augmentation.affine=true"),
    "limitr": ("training.accumulation_steps=2",),
    "gloria": ("training.accumulation_steps=2", "training.accumulation=plain"),
    "chexpert": ("data.labels=[Cardiomegaly,Edema]",),
}


def record(*, shards: Path = RECORDED / "shards") -> dict[str, Any]:
    """By method: the lines of `metrics.jsonl` without timings, and the figures of `evaluate`."""
    with tempfile.TemporaryDirectory() as folder:
        return {name: record_run(name, Path(folder) / name, shards) for name in METHODS}


def record_run(method: str, folder: Path, shards: Path) -> dict[str, Any]:
    """One method, trained for `STEPS` steps and evaluated."""
    overrides = [*COMMON, *SPECIAL.get(method, ()), f"data.shards={shards}", f"run_folder={folder}"]
    names = (f"phantom_{method}", f"phantom_{LATER_NAMES.get(method)}")
    profiles = [Path(f"configs/pretrain/{name}.yaml") for name in names]
    _command("pretrain", str(next(each for each in profiles if each.exists())), *overrides)
    _command("evaluate", str(folder), "checkpoint=last", "labelled_studies=16")
    return {
        "metrics": metrics_of(folder),
        "evaluation": json.loads((folder / "evaluation_test_last.json").read_text()),
    }


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`, without those fields that tell time or memory."""
    path = folder / "metrics.jsonl"
    lines = map(json.loads, path.read_text().splitlines() if path.exists() else ())
    return [{key: value for key, value in line.items() if not _is_timing(key)} for line in lines]


def _is_timing(name: str) -> bool:
    return name in TIMINGS or name.endswith(("_per_second", "_seconds"))


def _command(*arguments: str) -> None:
    from distributed_pretrain.__main__ import main

    status = main(arguments)
    if status:
        raise RuntimeError(f"{' '.join(arguments)}: exit status {status}")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(record(), indent=1) + "\n")

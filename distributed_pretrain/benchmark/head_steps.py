"""A step of a localized head in the trainer beside a bare loop's, on features that are kept.

U-Net and YOLOv3 on a frozen encoder: the bare loop has its batches in memory, the trainer takes
them out of the kept split, and checks, counts and logs as in any run.
"""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path
from typing import Any

from data_shards.profiles import validate
from distributed_pretrain.benchmark import harness
from distributed_pretrain.benchmark.step import (
    TARGET_RATIO,
    TARGET_WAIT_SHARE,
    beside_bare_loop,
)
from distributed_pretrain.downstream.features import FeatureStore
from distributed_pretrain.downstream.run import build_parts
from distributed_pretrain.downstream.settings import DownstreamConfig
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.training.faults.liveness import Liveness
from distributed_pretrain.training.run import build_trainer, make_engine
from distributed_pretrain.training.step import peak_memory_bytes

OPACITY = "Opacity"
HEADS: dict[str, dict[str, Any]] = {
    "unet": {"masks": [OPACITY], "masks_from": "boxes"},
    "yolov3": {"boxes": [OPACITY]},
}
BEST_METRIC = "total"


def measure_head(
    name: str, config: dict[str, Any], folder: Path, *, steps: int
) -> dict[str, float]:
    """Median seconds a step of both loops, their ratio, the wait for data, and peak memory.

    `config` are the values of a `DownstreamConfig` without protocol and labels.
    """
    values = {
        **config,
        "run_folder": folder / name,
        "protocol": {"name": name},
        "data": {**config["data"], "labels": [], **HEADS[name]},
        "training": {**config["training"], "best_metric": BEST_METRIC},
    }
    own = validate(DownstreamConfig, values, where="benchmark downstream")
    store = FeatureStore(own.features, folder / "features")
    engine = make_engine(own.training)
    alone = Liveness(rank=0, world_size=1, timeout_seconds=1)
    run = RunFolder(own.run_folder)
    trainer = build_trainer(own, engine, run, alone, partial(build_parts, own, store))
    batches = trainer.loader.batches()
    found = beside_bare_loop(trainer, batches, steps=steps)
    batches.close()
    trainer.close()
    engine.close()
    return {
        "bare_step_seconds": statistics.median(found.bare),
        "trainer_step_seconds": statistics.median(found.trainer),
        "ratio": harness.Ratios(found.trainer, found.bare).median,
        "data_wait_share": found.data_wait_share,
        "peak_memory_gib": peak_memory_bytes(engine.device) / 2**30,
    }


def targets_of(name: str, figures: dict[str, float]) -> list[harness.Target]:
    """What is asked of a head's figures."""
    return [
        harness.Target(f"{name}: trainer / bare loop", figures["ratio"], TARGET_RATIO),
        harness.Target(f"{name}: data wait", figures["data_wait_share"], TARGET_WAIT_SHARE),
    ]

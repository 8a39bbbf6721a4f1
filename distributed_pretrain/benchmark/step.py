"""What the trainer adds to a bare training loop, in one run.

The bare loop holds normalised batches in memory and does what no training can leave out: forward,
loss, backward, norm, update. The trainer reads shards, decodes, augments, logs to metrics.jsonl
and TensorBoard, and checks for non-finite values and signals. Steps of both alternate, so that a
slow minute of the machine hits both.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import PositiveInt

from data_shards.profiles import Config, parse_overrides, validate
from data_shards.synthetic_shards import write_synthetic_shards
from distributed_pretrain.batch import Batch
from distributed_pretrain.pretrain.build import build_trainer, make_engine
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.training.faults.liveness import Liveness
from distributed_pretrain.training.loop import Trainer
from distributed_pretrain.training.step import peak_memory_bytes

TARGET_RATIO = 1.05
TARGET_WAIT_SHARE = 0.03


class StepBenchmarkConfig(Config):
    """The paper's model sizes by default (random weights: nothing is downloaded)."""

    steps: PositiveInt = 8
    warmup_steps: PositiveInt = 2
    batch: PositiveInt = 8
    backbone: str = "resnet50"
    hidden_size: PositiveInt = 768
    layers: PositiveInt = 12
    frozen_layers: int = 6
    image_size_px: PositiveInt = 224
    precision: str = "float32"
    channels_last: bool = True
    compile: bool = False


def run(overrides: Sequence[str]) -> None:
    """Measure and print a table, then one line of JSON. Raises InputError for a bad override."""
    config = validate(StepBenchmarkConfig, parse_overrides(overrides), where="benchmark step")
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(config, Path(folder))
    for name, value in figures.items():
        print(f"  {name:36s} {value:10.4f}")
    verdict = "reached" if figures["trainer_to_bare_ratio"] <= TARGET_RATIO else "MISSED"
    print(f"  trainer / bare loop at most {TARGET_RATIO}: {verdict}")
    verdict = "reached" if figures["data_wait_share"] < TARGET_WAIT_SHARE else "MISSED"
    print(f"  data wait under {TARGET_WAIT_SHARE:.0%}: {verdict}")
    print(json.dumps(figures))


def measure(config: StepBenchmarkConfig, folder: Path) -> dict[str, float]:
    """Median seconds a step of both loops, their ratio, and the trainer's shares."""
    pretrain_config = _pretrain_config(config, folder)
    alone = Liveness(rank=0, world_size=1, timeout_seconds=1)
    trainer = build_trainer(
        pretrain_config,
        make_engine(pretrain_config),
        RunFolder(pretrain_config.run_folder),
        alone,
    )
    trainer.engine.method.train()
    batches = trainer.loader.batches()
    memory = [
        trainer.updater.transform(next(batches), trainer.engine.device, train=True)
        for _ in range(2)
    ]
    bare, full, waits, augmentations = [], [], [], []
    for step in range(config.warmup_steps + config.steps):
        bare.append(_seconds(trainer, lambda step=step: _bare_step(trainer, memory[step % 2])))
        waited = trainer.loader.wait_seconds
        full.append(_seconds(trainer, lambda: trainer.step(batches)))
        waits.append(trainer.loader.wait_seconds - waited)
    host = next(batches)
    for _ in range(3):
        augmentations.append(
            _seconds(
                trainer, lambda: trainer.updater.transform(host, trainer.engine.device, train=True)
            )
        )
    batches.close()
    trainer.close()
    trainer.engine.close()
    bare_seconds = statistics.median(bare[config.warmup_steps :])
    full_seconds = statistics.median(full[config.warmup_steps :])
    return {
        "bare_step_seconds": bare_seconds,
        "trainer_step_seconds": full_seconds,
        "trainer_to_bare_ratio": full_seconds / bare_seconds,
        "augmentation_share": min(augmentations) / full_seconds,
        "data_wait_share": sum(waits[config.warmup_steps :]) / sum(full[config.warmup_steps :]),
        "bare_pairs_per_second": config.batch / bare_seconds,
        "trainer_pairs_per_second": config.batch / full_seconds,
        "peak_memory_gib": peak_memory_bytes(trainer.engine.device) / 2**30,
    }


def _bare_step(trainer: Trainer, batch: Batch) -> None:
    engine = trainer.engine
    engine.backward(engine.method.loss(engine.forward(batch))["total"])
    engine.update(
        trainer.config.optimizer.learning_rate, clip_norm=None, norm=engine.gradient_norm()
    )


def _seconds(trainer: Trainer, action: object) -> float:
    assert callable(action)
    started = time.perf_counter()
    action()
    if trainer.engine.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _pretrain_config(config: StepBenchmarkConfig, folder: Path) -> PretrainConfig:
    shards = folder / "shards"
    studies = 8 * config.batch
    write_synthetic_shards(
        shards, studies={"train": studies, "validate": studies}, studies_a_shard=64
    )
    values = {
        "run_folder": folder / "run",
        "data": {
            "shards": shards,
            "global_batch": config.batch,
            "image_size_px": config.image_size_px,
        },
        "method": {
            "image_encoder": {"backbone": config.backbone, "weights": None},
            "report_encoder": {
                "name": "new",
                "hidden_size": config.hidden_size,
                "layers": config.layers,
                "heads": max(1, config.hidden_size // 64),
                "intermediate_size": 4 * config.hidden_size,
                "frozen_layers": config.frozen_layers,
            },
        },
        "training": {
            "precision": config.precision,
            "channels_last": config.channels_last,
            "compile": config.compile,
        },
    }
    return validate(PretrainConfig, values, where="benchmark step")

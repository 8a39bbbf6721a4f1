"""A profile of the checkout with random weights and drawn shards, opened as a run is."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from data_shards.profiles import load_profile, validate
from data_shards.synthetic_shards import write_synthetic_shards
from distributed_pretrain.benchmark.on_gpu.parts import Bench
from distributed_pretrain.pretrain.build import build_parts
from distributed_pretrain.pretrain.random_weights import with_random_weights
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.training.faults.liveness import Liveness
from distributed_pretrain.training.loop import Trainer
from distributed_pretrain.training.run import build_trainer, make_engine

SHARDS = "shards"
# Reports that are longer than any profile reads: so many tokens are real.
_SENTENCES = 24


def write_shards(folder: Path, *, tiny: bool) -> None:
    """Studies with a frontal and a lateral image, and long reports."""
    write_synthetic_shards(
        folder / SHARDS,
        studies={"train": 24 if tiny else 1024, "validate": 4 if tiny else 16},
        studies_a_shard=24 if tiny else 128,
        views=("PA", "L"),
        longest_side_px=72 if tiny else 320,
        sentences=_SENTENCES,
    )


def profile(bench: Bench, name: str, **data: Any) -> PretrainConfig:
    """The profile, where nothing is downloaded; `data` are changes to what it says of that."""
    config = with_random_weights(load_profile(PretrainConfig, bench.profiles / f"{name}.yaml"))
    values = config.model_dump()
    values["run_folder"] = Path(tempfile.mkdtemp(dir=bench.folder)) / "run"
    values["data"] |= {"shards": bench.folder / SHARDS, **data}
    values["training"]["device"] = "any"
    if bench.device == "cpu":
        # Which has none of its own to ask: the estimate is walked as for a GPU.
        values["training"]["device_memory_gib"] = 1000
    if bench.tiny:
        _shrink(values)
    return validate(PretrainConfig, values, where=name)


def _shrink(values: dict[str, Any]) -> None:
    """Small enough for a CPU's second, with as many kinds of parts as before."""
    method = values["method"]
    method["image_encoder"] |= {"backbone": "resnet18", "width": 0.125}
    if method["report_encoder"] is not None:
        # Six layers: LIMITR sums four, LoVT freezes six.
        small = {"hidden_size": 32, "layers": 6, "heads": 2, "intermediate_size": 32}
        method["report_encoder"] |= small
        method["report_encoder"]["frozen_layers"] = 1
    small = {"embedding_dim": 16, "projection_dim": 16, "projection_hidden_dim": 16}
    method |= {name: size for name, size in small.items() if name in method}
    values["vocabulary_size"] = 100
    pieces = min(2, values["training"]["accumulation_steps"])
    values["training"] |= {"accumulation_steps": pieces, "precision": "float32"}
    values["data"] |= {"image_size_px": 64, "global_batch": 4, "max_tokens": 16}
    if values["training"]["negatives_from"] is not None:
        # Two groups in a micro-batch and one in another.
        values["training"]["negatives_from"] = 2
        values["data"]["global_batch"] = 6


@contextlib.contextmanager
def opened(config: PretrainConfig) -> Iterator[Trainer]:
    """The trainer of a run that begins, in a folder of its own."""
    engine = make_engine(config.training)
    alone = Liveness(rank=0, world_size=1, timeout_seconds=1)
    run = RunFolder(config.run_folder)
    with contextlib.ExitStack() as ending:
        ending.callback(engine.close)
        trainer = build_trainer(config, engine, run, alone, partial(build_parts, config))
        ending.callback(trainer.close)
        engine.objective.train()
        yield trainer

"""Seconds of a linear run on kept features beside the same run on images, in one run.

Labels of made-up images, told by a layer on a frozen encoder: training, validation after every
epoch and the judging on the test split. The figures of both must be the same. Then a step of each
of the larger heads on kept features, in the trainer and in a bare loop.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt

from data_shards.profiles import Config, validate
from data_shards.synthetic_shards import write_synthetic_shards
from distributed_pretrain.benchmark import harness
from distributed_pretrain.benchmark.head_steps import (
    HEADS,
    OPACITY,
    measure_head,
    targets_of,
)
from distributed_pretrain.downstream.features import FeatureStore
from distributed_pretrain.downstream.run import judge_head, train_head
from distributed_pretrain.downstream.settings import DownstreamConfig
from distributed_pretrain.measures.auroc import AUROC
from distributed_pretrain.training.memory.estimate import GIB

LABELS = ("Edema", "Pneumonia")
TARGET_RATIO = 5.0


class Settings(Config):
    """`images` train the head, a quarter as many validate and a quarter judge it.

    Of each of the larger heads, `head_steps` of `head_batch` are measured.
    """

    images: PositiveInt = 256
    # A detector's coarsest map has a cell every 32 px.
    image_size_px: Annotated[int, Field(ge=32, multiple_of=32)] = 224
    backbone: str = "resnet50"
    width: PositiveFloat = 1.0
    batch: PositiveInt = 32
    epochs: PositiveInt = 10
    repeats: PositiveInt = 1
    head_steps: PositiveInt = 20
    head_batch: PositiveInt = 8


def run(settings: Settings) -> None:
    """Measure and print."""
    with TemporaryDirectory() as folder:
        measure(settings, Path(folder))


def measure(settings: Settings, folder: Path) -> None:
    """The runs, in turns; shards and run folders go to `folder`."""
    fewer = max(4, settings.images // 4)
    write_synthetic_shards(
        folder / "shards",
        studies={"train": settings.images, "validate": fewer, "test": fewer},
        studies_a_shard=64,
        longest_side_px=settings.image_size_px,
        labels=LABELS,
        boxes=(OPACITY,),
    )
    store = FeatureStore(_config(settings, folder, "kept", keep=True).features, folder / "features")
    numbers = {"kept": 0, "images": 0}
    found: dict[str, dict[str, float]] = {}

    def one(kind: str) -> float:
        config = _config(settings, folder, f"{kind}_{numbers[kind]}", keep=kind == "kept")
        numbers[kind] += 1
        own = store if kind == "kept" else FeatureStore(config.features, folder / "none")

        def whole() -> None:
            assert train_head(config, own)
            found[kind] = judge_head(config, own)

        return harness.seconds_of(whole)

    making = one("kept")
    turns = {kind: lambda kind=kind: one(kind) for kind in numbers}
    seconds = harness.take_turns(turns, turns=settings.repeats, warmup=0)
    ratio = harness.Ratios(seconds["images"], seconds["kept"])
    apart = max(abs(found["kept"][name] - value) for name, value in found["images"].items())
    harness.print_figures(
        {
            "a run on images, s": statistics.median(seconds["images"]),
            "a run on kept features, s": statistics.median(seconds["kept"]),
            "the first of them, which makes them, s": making,
            "features, GiB": store.kept_bytes / GIB,
            "figures apart by at most": apart,
        }
    )
    print(f"  images / kept features {ratio}")
    targets = [
        harness.Target("images / kept features", ratio.median, TARGET_RATIO, at_least=True),
        harness.Target("figures apart", apart, 1e-3),
    ]
    report: dict[str, Any] = {"seconds": seconds, "making_seconds": making, "apart": apart}
    values = _values(settings, folder, "heads", keep=True)
    values["data"]["global_batch"] = settings.head_batch
    for head in HEADS:
        report[head] = measure_head(head, values, folder, steps=settings.head_steps)
        print(f"a step of {head}, batches of {settings.head_batch}:")
        harness.print_figures(report[head])
        targets += targets_of(head, report[head])
    harness.conclude(targets, {**report, "ratio": ratio.median, "settings": settings.model_dump()})


def _config(settings: Settings, folder: Path, name: str, *, keep: bool) -> DownstreamConfig:
    values = _values(settings, folder, name, keep=keep)
    return validate(DownstreamConfig, values, where="benchmark downstream")


def _values(settings: Settings, folder: Path, name: str, *, keep: bool) -> dict[str, Any]:
    encoder = {"backbone": settings.backbone, "weights": None, "width": settings.width}
    return {
        "run_folder": folder / name,
        "encoder": {"image_encoder": encoder},
        "protocol": {"name": "linear"},
        "features": {"keep": keep, "memory_gib": 1e6},
        "data": {
            "shards": folder / "shards",
            "labels": LABELS,
            "image_size_px": settings.image_size_px,
            "global_batch": settings.batch,
            "augmentation": {"enabled": False},
        },
        "schedule": {"name": "constant"},
        "training": {
            "epochs": settings.epochs,
            "best_metric": AUROC.name,
            "early_stopping": None,
            "pictures": False,
            "gradient_norms_every_steps": None,
        },
    }

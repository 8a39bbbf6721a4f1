"""What the trainer adds to a bare training loop, in one run.

The bare loop holds normalised batches in memory. The trainer reads shards, decodes, augments,
logs to metrics.jsonl and TensorBoard, and checks for non-finite values and signals.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path

import torch
from pydantic import PositiveFloat, PositiveInt

from data_shards.profiles import CONFIGS, Config, load_profile, validate
from data_shards.synthetic_shards import write_synthetic_shards
from distributed_pretrain.batch import Batch
from distributed_pretrain.benchmark import harness, launches, padding
from distributed_pretrain.methods.encoders import ImageEncoderConfig, NewReportEncoderConfig
from distributed_pretrain.methods.lovt.method import Lovt
from distributed_pretrain.methods.lovt.settings import LovtConfig
from distributed_pretrain.methods.settings import Sizes
from distributed_pretrain.models.norms.kinds import Norm
from distributed_pretrain.pretrain.build import build_parts
from distributed_pretrain.pretrain.full_batch import full_batch
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.training.engine.ddp import Engine, build_optimizer
from distributed_pretrain.training.faults.liveness import Liveness
from distributed_pretrain.training.loop import Trainer
from distributed_pretrain.training.run import build_trainer, make_engine
from distributed_pretrain.training.settings import OptimizerConfig
from distributed_pretrain.training.step import StepNumbers, peak_memory_bytes

TARGET_RATIO = 1.05
TARGET_WAIT_SHARE = 0.03
TARGET_WAITS = 1
TARGET_TOKENS = 1.3
WARMUP_STEPS = 2
AUGMENTED_BATCHES = 3

LEARNING_RATE = 1e-5
TOKENS = 64
_PROFILES = tuple(
    CONFIGS / "pretrain" / f"{name}_a100.yaml"
    for name in ("lovt", "clip", "limitr", "gloria", "mgca", "byol")
)
# What the targets are about.
JUDGED = CONFIGS / "pretrain" / "lovt_a100.yaml"
# Fewer than any vocabulary here has.
_TOKEN_IDS = 1000


class LovtSizes(Config):
    """The paper's model sizes (random weights: nothing is downloaded), and pairs a step."""

    batch: PositiveInt = 8
    image_size_px: PositiveInt = 224
    backbone: str = "resnet50"
    width: PositiveFloat = 1.0
    hidden_size: PositiveInt = 768
    layers: PositiveInt = 12
    embedding_dim: PositiveInt = 512
    projection_hidden_dim: PositiveInt = 2048

    def method(self, *, frozen_layers: int | None = None, norm: Norm = "sync") -> LovtConfig:
        """The method's settings; `norm` is that of the trunk."""
        return LovtConfig(
            image_encoder=ImageEncoderConfig(
                backbone=self.backbone, width=self.width, weights=None, norm=norm
            ),
            report_encoder=NewReportEncoderConfig(
                hidden_size=self.hidden_size,
                layers=self.layers,
                heads=max(1, self.hidden_size // 64),
                intermediate_size=4 * self.hidden_size,
                frozen_layers=frozen_layers,
            ),
            embedding_dim=self.embedding_dim,
            projection_hidden_dim=self.projection_hidden_dim,
        )

    def build(self, vocabulary_size: int, *, norm: Norm = "sync") -> Lovt:
        """LoVT in training mode, the same weights each time. Raises InputError for odd sizes."""
        torch.manual_seed(0)
        return self.method(norm=norm).build(Sizes(vocabulary_size)).train()


def prepare(engine: Engine, lovt: Lovt) -> None:
    """Give `engine` the method, and AdamW."""
    engine.prepare(lovt.to(engine.device), build_optimizer(OptimizerConfig(), lovt))


def noise_batch(sizes: LovtSizes, device: torch.device) -> Batch:
    """Pairs without padding that show and say nothing, the same ones each time."""
    torch.manual_seed(0)
    batch = full_batch(device, rows=sizes.batch, image_size_px=sizes.image_size_px, tokens=TOKENS)
    batch.images.normal_()
    batch.report.token_ids.random_(1, _TOKEN_IDS)
    return batch


def bare_step(engine: Engine, batch: Batch) -> None:
    """What no training can leave out: forward, loss, backward, norm, update."""
    engine.backward(engine.objective.loss(engine.forward(batch))["total"])
    engine.update(LEARNING_RATE, clip_norm=None, norm=engine.gradient_norm())


class Settings(LovtSizes):
    """The paper's sizes, its frozen layers too, unless told otherwise.

    Of each of `profiles` is counted what the host launches and waits for in a step on a GPU, and
    how many tokens an encoder computes.
    """

    steps: PositiveInt = 8
    profiles: tuple[Path, ...] = _PROFILES
    frozen_layers: int = 6
    precision: str = "float32"
    channels_last: bool = True
    compile: bool = False
    pack_reports: bool | None = None


def run(config: Settings) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(config, Path(folder))
    harness.print_figures(figures)
    print(f"on a GPU, counted without one, reports of {launches.TOKENS} tokens, a step:")
    columns = {"profile": "24s", "micro-batches": "13.0f", "launches": "9.0f"}
    table = harness.Table({**columns, "copies": "7.0f", "waits": "6.0f"})
    targets = [
        harness.Target("trainer / bare loop", figures["trainer_to_bare_ratio"], TARGET_RATIO),
        harness.Target("data wait of a step", figures["data_wait_share"], TARGET_WAIT_SHARE),
    ]
    for each in config.profiles:
        counts = launches.counts_of(load_profile(PretrainConfig, each))
        table.row(each.stem, counts.micro_batches, counts.launches, counts.copies, counts.waits)
        targets.append(harness.Target(f"{each.stem}: waits", counts.waits, TARGET_WAITS))
        if each == JUDGED:
            share = counts.launches / launches.LOVT_AT_FIRST
            targets.append(harness.Target(f"{each.stem}: launches / at first", share, 1 / 3))
    computed = padding.computed_to_real(padding.LIKE_MIMIC, micro_batch=32)
    targets.append(harness.Target("tokens computed / real, packed", computed, TARGET_TOKENS))
    harness.conclude(targets, figures | {"on_a_gpu": table.rows})


def measure(config: Settings, folder: Path) -> dict[str, float]:
    """Median seconds a step of both loops, their ratio, and the trainer's shares."""
    run_config = _run_config(config, folder)
    engine = make_engine(run_config.training)
    alone = Liveness(rank=0, world_size=1, timeout_seconds=1)
    run = RunFolder(run_config.run_folder)
    trainer = build_trainer(run_config, engine, run, alone, partial(build_parts, run_config))
    batches = trainer.loader.batches()
    steps = beside_bare_loop(trainer, batches, steps=config.steps)
    augmentations = []
    for _ in range(AUGMENTED_BATCHES):
        waited_before = trainer.loader.wait_seconds
        whole = harness.seconds_of(lambda: next(batches))
        augmentations.append(whole - (trainer.loader.wait_seconds - waited_before))
    batches.close()
    trainer.close()
    engine.close()
    bare, full = statistics.median(steps.bare), statistics.median(steps.trainer)
    return {
        "bare_step_seconds": bare,
        "trainer_step_seconds": full,
        "trainer_to_bare_ratio": full / bare,
        "augmentation_share": min(augmentations) / full,
        "data_wait_share": steps.data_wait_share,
        "bare_pairs_per_second": config.batch / bare,
        "trainer_pairs_per_second": config.batch / full,
        "trainer_tokens_per_second": statistics.median(
            each.values["tokens_per_second"] for each in steps.read
        ),
        "padding_share": statistics.mean(each.values["padding_share"] for each in steps.read),
        "peak_memory_gib": peak_memory_bytes(engine.device) / 2**30,
    }


@dataclass(frozen=True)
class BesideBareLoop:
    """Seconds of each step of the bare loop and of the trainer, and what the trainer read."""

    bare: list[float]
    trainer: list[float]
    data_wait_share: float
    read: list[StepNumbers]


def beside_bare_loop(trainer: Trainer, batches: Iterator[Batch], *, steps: int) -> BesideBareLoop:
    """So many of each in turns: the bare loop has its batches in memory."""
    engine, read = trainer.engine, list[StepNumbers]()
    engine.objective.train()
    pack = engine.packs_reports
    in_memory = cycle([next(batches).split([1], pack=pack)[0] for _ in range(2)])
    take_turns = partial(
        harness.take_turns,
        {
            "bare": lambda: harness.seconds_of(lambda: bare_step(engine, next(in_memory))),
            "trainer": lambda: harness.seconds_of(lambda: read.extend(trainer.step(batches))),
        },
        warmup=0,
    )
    take_turns(turns=WARMUP_STEPS)
    waited = trainer.loader.wait_seconds
    turns = take_turns(turns=steps)
    waited = trainer.loader.wait_seconds - waited
    share = waited / sum(turns["trainer"])
    return BesideBareLoop(turns["bare"], turns["trainer"], share, read)


def _run_config(config: Settings, folder: Path) -> PretrainConfig:
    shards, studies = folder / "shards", 8 * config.batch
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
        "method": config.method(frozen_layers=config.frozen_layers),
        "training": config.model_dump(
            include={"precision", "channels_last", "compile", "pack_reports"}
        ),
    }
    return validate(PretrainConfig, values, where="benchmark step")

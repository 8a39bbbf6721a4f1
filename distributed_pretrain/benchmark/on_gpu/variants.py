"""LoVT's micro-batch in other sizes and with other settings, in turns: forward, loss, backward."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch

from distributed_pretrain.batch import Batch
from distributed_pretrain.benchmark import harness
from distributed_pretrain.benchmark.on_gpu.parts import (
    Bench,
    Flag,
    Report,
    flags,
    medians,
    turns_for,
)
from distributed_pretrain.benchmark.on_gpu.profiles import opened, profile
from distributed_pretrain.models.norms.groups import in_groups
from distributed_pretrain.pretrain.full_batch import full_batch
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.training.compiling import compile_encoders
from distributed_pretrain.training.engine.ddp import Engine
from distributed_pretrain.training.gradients import loss_of_groups

GROUP, USUAL = 32, 128
SIZES = (GROUP, USUAL, 192, 256)
TOKENS = 128


class Variant(NamedTuple):
    """Pairs in memory, compared and normalised in so many groups as `lovt_a100` has it.

    And torch's switches, and what autocast lowers to (None: nothing).
    """

    batch: Batch
    groups: int
    changes: tuple[Flag, ...] = ()
    lowered: torch.dtype | None = torch.bfloat16


def measure(bench: Bench, report: Report) -> None:
    """Pairs a second of each variant; the compiled model last, as it takes its time."""
    config = profile(bench, "lovt_a100")
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    with opened(config) as trainer:
        sizes = {rows: Variant(_noise(bench, config, rows), rows // GROUP) for rows in SIZES}
        variants = {f"micro_batch_{rows}": each for rows, each in sizes.items()}
        usual = sizes[USUAL]
        variants["cudnn_benchmark"] = usual._replace(changes=((cudnn, "benchmark", True),))
        for name, tf32 in (("float32", False), ("float32_tf32", True)):
            changes = ((matmul, "allow_tf32", tf32), (cudnn, "allow_tf32", tf32))
            variants[name] = usual._replace(changes=changes, lowered=None)
        # A norm in bf16 may take torch's own kernels, in fp16 cuDNN's.
        variants["fp16"] = usual._replace(lowered=torch.float16)
        _rates(trainer.engine, variants, report, seconds=bench.share(0.3))
        if not bench.tiny:
            compile_encoders(trainer.engine.objective, walks_by_term=False)
            compiled = {"compiled": usual}
            _rates(trainer.engine, compiled, report, seconds=bench.share(0.1))


def _rates(
    engine: Engine, variants: Mapping[str, Variant], report: Report, *, seconds: float
) -> None:
    steps = {name: partial(_step, engine, variant) for name, variant in variants.items()}
    turns = turns_for({n: partial(harness.seconds_of, step) for n, step in steps.items()}, seconds)
    for name, each in medians(turns).items():
        report(**{f"{name}_pairs_per_second": len(variants[name].batch.keys) / each})


def _step(engine: Engine, variant: Variant) -> None:
    objective, device, groups = engine.objective, engine.device.type, variant.groups
    lowered = torch.autocast(device, variant.lowered, enabled=variant.lowered is not None)
    with flags(*variant.changes):
        with lowered, in_groups(groups):
            outputs = objective(variant.batch)
        loss_of_groups(objective, outputs, groups).backward()
        engine.drop_gradients()


def _noise(bench: Bench, config: PretrainConfig, rows: int) -> Batch:
    data = config.data
    batch = full_batch(
        bench.torch_device,
        rows=rows // GROUP * 2 if bench.tiny else rows,
        image_size_px=data.image_size_px,
        tokens=min(TOKENS, data.max_tokens),
    )
    batch.images.normal_()
    return batch

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
from distributed_pretrain.pretrain.full_batch import full_batch
from distributed_pretrain.pretrain.settings import PretrainConfig
from distributed_pretrain.training.compiling import compile_encoders
from distributed_pretrain.training.engine.ddp import Engine

SIZES = (32, 128, 256)
TOKENS = 128


class Variant(NamedTuple):
    """Pairs in memory, torch's switches, and what autocast lowers to (None: nothing)."""

    batch: Batch
    changes: tuple[Flag, ...] = ()
    lowered: torch.dtype | None = torch.bfloat16


def measure(bench: Bench, report: Report) -> None:
    """Pairs a second of each variant; the compiled model last, as it takes its time."""
    config = profile(bench, "lovt_a100")
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    with opened(config) as trainer:
        batches = {rows: _noise(bench, config, rows) for rows in SIZES}
        usual = batches[SIZES[0]]
        variants = {f"micro_batch_{rows}": Variant(each) for rows, each in batches.items()}
        variants["cudnn_benchmark"] = Variant(usual, ((cudnn, "benchmark", True),))
        for name, tf32 in (("float32", False), ("float32_tf32", True)):
            changes = ((matmul, "allow_tf32", tf32), (cudnn, "allow_tf32", tf32))
            variants[name] = Variant(usual, changes, lowered=None)
        # A norm in bf16 may take torch's own kernels, in fp16 cuDNN's.
        variants["fp16"] = Variant(usual, lowered=torch.float16)
        _rates(trainer.engine, variants, report, seconds=bench.share(0.3))
        if not bench.tiny:
            compile_encoders(trainer.engine.objective, walks_by_term=False)
            compiled = {"compiled": Variant(usual)}
            _rates(trainer.engine, compiled, report, seconds=bench.share(0.1))


def _rates(
    engine: Engine, variants: Mapping[str, Variant], report: Report, *, seconds: float
) -> None:
    steps = {name: partial(_step, engine, variant) for name, variant in variants.items()}
    turns = turns_for({n: partial(harness.seconds_of, step) for n, step in steps.items()}, seconds)
    for name, each in medians(turns).items():
        report(**{f"{name}_pairs_per_second": len(variants[name].batch.keys) / each})


def _step(engine: Engine, variant: Variant) -> None:
    objective, device = engine.objective, engine.device.type
    with flags(*variant.changes):
        with torch.autocast(device, variant.lowered, enabled=variant.lowered is not None):
            outputs = objective(variant.batch)
        objective.loss(outputs)["total"].backward()
        engine.drop_gradients()


def _noise(bench: Bench, config: PretrainConfig, rows: int) -> Batch:
    data = config.data
    batch = full_batch(
        bench.torch_device,
        rows=2 if bench.tiny else rows,
        image_size_px=data.image_size_px,
        tokens=min(TOKENS, data.max_tokens),
    )
    batch.images.normal_()
    return batch

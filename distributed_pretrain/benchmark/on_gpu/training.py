"""A profile through the trainer, beside the same without what a bare loop can leave out.

The trainer runs with its loader; on batches that it gets again and again, with the loader's threads
gone; a bare loop makes the same forwards, losses, backwards and updates; a plain one is another's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import cycle
from typing import Any

from distributed_pretrain.batch import Batch
from distributed_pretrain.benchmark import harness
from distributed_pretrain.benchmark.on_gpu.parts import Bench, Report, medians, turns_for
from distributed_pretrain.benchmark.on_gpu.plain_loop import PlainLoop
from distributed_pretrain.benchmark.on_gpu.profiles import opened, profile
from distributed_pretrain.methods.objective import Method
from distributed_pretrain.training.engine.ddp import Engine
from distributed_pretrain.training.engine.device import LOWERED
from distributed_pretrain.training.gradients import loss_of_groups
from distributed_pretrain.training.loop import Trainer
from distributed_pretrain.training.step import peak_memory_bytes

LEARNING_RATE = 1e-5
WARMUP_STEPS = 2
AUGMENTED_BATCHES = 3
GIB = 2**30


def bare_update(engine: Engine, micro_batches: list[Batch], *, groups: Sequence[int]) -> None:
    """What no training with these micro-batches, each compared in its `groups`, can leave out."""
    objective = engine.objective
    objective.start_step(epoch=0)
    with engine.kept_casts():
        for number, (batch, own) in enumerate(zip(micro_batches, groups, strict=True)):
            with engine.micro_batch(last=number == len(micro_batches) - 1):
                outputs = engine.forward(batch, groups=own)
                loss = loss_of_groups(objective, outputs, own)
                engine.backward(loss * own / sum(groups))
    engine.update(LEARNING_RATE, clip_norm=None, norm=engine.gradient_norm())
    objective.after_update(progress=0.0)


def measure_profile(bench: Bench, report: Report, *, name: str, data: Mapping[str, Any]) -> None:
    """Rates of all loops, and what the trainer's time goes to."""
    config = profile(bench, name, **data)
    with opened(config) as trainer:
        engine, pairs = trainer.engine, config.data.global_batch
        if trainer.memory is not None:
            report(estimated_memory_gib=trainer.memory.total / GIB)
        with closing(trainer.loader.batches()) as batches:
            for _ in range(WARMUP_STEPS):
                trainer.step(batches)
            whole = _with_loader(trainer, batches, report, seconds=bench.share(0.2))
            recorded = [next(batches) for _ in range(2)]
            augmentation = min(_augmentation(trainer, batches) for _ in range(AUGMENTED_BATCHES))
        report(peak_memory_gib=peak_memory_bytes(engine.device) / GIB)
        groups = config.training.groups(pairs)
        pieces = [each.split(groups, pack=engine.packs_reports) for each in recorded]
        again, parts, others = cycle(recorded), cycle(pieces), cycle(pieces)
        loops = {
            "replayed": lambda: trainer.step(again),
            "bare": lambda: bare_update(engine, next(parts), groups=groups),
        }
        lowered = LOWERED.get(config.training.precision)
        assert isinstance(engine.objective, Method)
        plain = PlainLoop(engine.objective, LEARNING_RATE, lowered=lowered)
        loops["plain"] = lambda: plain.step(next(others))
        turns = turns_for(
            {each: partial(harness.seconds_of, loop) for each, loop in loops.items()},
            bench.share(0.2),
        )
        found = medians(turns)
        for each, seconds in found.items():
            report(**{f"{each}_pairs_per_second": pairs / seconds})
        _compare(report, whole, found, augmentation)
        # Again, as the device has got warm meanwhile.
        with closing(trainer.loader.batches()) as batches:
            trainer.step(batches)
            again_whole = _with_loader(trainer, batches, report, seconds=bench.share(0.1))
        _compare(report, again_whole, found, augmentation)


def _compare(report: Report, whole: float, loops: Mapping[str, float], augmentation: float) -> None:
    """What a step of `whole` seconds is beside those of the loops, and where its time goes."""
    report(
        rate_to_bare_loop=loops["bare"] / whole,
        rate_to_plain_loop=loops["plain"] / whole,
        augmentation_share=augmentation / whole,
        # What is left of the difference: the data threads hold the interpreter.
        interpreter_lock_share=(whole - loops["replayed"] - augmentation) / whole,
    )


def _with_loader(
    trainer: Trainer, batches: Iterator[Batch], report: Report, *, seconds: float
) -> float:
    """The mean seconds of a step; reports what the steps say of themselves."""
    trainer.read_newest()
    waited, started = trainer.loader.wait_seconds, time.perf_counter()
    steps: list[dict[str, float]] = []
    launched = 0
    while launched < 2 or time.perf_counter() - started < seconds:
        steps += [read.values for read in trainer.step(batches)]
        launched += 1
    steps += [read.values for read in trainer.read_newest()]
    whole = time.perf_counter() - started
    report(
        pairs_per_second=launched * trainer.config.data.global_batch / whole,
        data_wait_share=(trainer.loader.wait_seconds - waited) / whole,
    )
    for name in ("tokens_per_second", "padding_share", "mfu"):
        if name in steps[-1]:
            report(**{name: statistics.median(each[name] for each in steps)})
    return whole / launched


def _augmentation(trainer: Trainer, batches: Iterator[Batch]) -> float:
    """Seconds of one batch's transform on the device."""
    waited = trainer.loader.wait_seconds
    whole = harness.seconds_of(lambda: next(batches))
    return whole - (trainer.loader.wait_seconds - waited)

"""A step on several ranks as `scaling_model` predicts it, and as real runs over gloo measure it.

Steps in one process, the same in two that send nothing, and collectives of two ranks give the
prediction. Each round takes all measurements.
"""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from pydantic import PositiveInt

from data_shards.processes import available_cores
from distributed_pretrain.batch import Batch
from distributed_pretrain.benchmark import bare_training, harness
from distributed_pretrain.benchmark.scaling_model import (
    FLOAT32_BYTES,
    STEP_NUMBERS,
    Collective,
    fit_link,
    predict_step,
)
from distributed_pretrain.methods.lovt.method import Lovt
from distributed_pretrain.ranks import gather_rows, sum_over_ranks, wait_for_all
from distributed_pretrain.training.engine.ddp import Engine

# Collectives are measured between two ranks, and so is what a busy second core costs.
PAIR = 2
COLLECTIVES: tuple[Collective, ...] = ("all_reduce", "all_gather", "reduce_scatter")
COLLECTIVE_BYTES = (2**12, 2**15, 2**18, 2**20, 2**22, 2**24)
COLLECTIVE_REPEATS = 7
WARMUP_STEPS = 2
VOCABULARY_SIZE = 1024

# A step in one process "alone", in two "side by side" that do not communicate, or on a number of
# ranks together; or a collective of two ranks by its size in bytes, as `Message` counts it.
Measured = str | int | tuple[Collective, int]


class ScalingBenchmarkConfig(bare_training.LovtSizes):
    """`batch` pairs a rank, on each number of `ranks` in turn.

    The sizes are those of a small LoVT, about that of configs/pretrain/lovt_small.yaml.
    """

    batch: PositiveInt = 16
    image_size_px: PositiveInt = 128
    backbone: str = "resnet18"
    width: float = 0.5
    hidden_size: PositiveInt = 128
    layers: PositiveInt = 2
    embedding_dim: PositiveInt = 128
    projection_hidden_dim: PositiveInt = 256
    ranks: tuple[PositiveInt, ...] = (1, 2, 4)
    steps: PositiveInt = 5
    rounds: PositiveInt = 5


def run(overrides: Sequence[str]) -> None:
    """Measure, predict and print both. Raises InputError for a bad override."""
    config = harness.read_settings(ScalingBenchmarkConfig, overrides, verb="scaling")
    measured = measure(config)
    contention = measured["side by side"] / measured["alone"]
    print(
        f"Predicted and measured: a small LoVT, gloo, {available_cores()} cores, one thread a "
        f"rank, {config.batch} pairs a rank, load {os.getloadavg()[0]:.1f} at the end\n"
        f"  two processes that do not communicate take {contention:.2f} times as long"
    )
    links = {}
    for kind in COLLECTIVES:
        seconds = {size: measured[kind, size] for size in COLLECTIVE_BYTES}
        links[kind] = link = fit_link(kind, seconds, ranks=PAIR)
        microseconds, megabytes = 1e6 * link.latency_seconds, link.bytes_per_second / 1e6
        print(f"  {kind:15s} latency {microseconds:7.0f} us, {megabytes:7.0f} MB/s sent by a rank")
    table = harness.Table(
        {"ranks": ">5", "rows": ">5"}
        | dict.fromkeys(("compute s", "waiting s", "predicted s", "measured s"), ">11.3f")
        | dict.fromkeys(("error", "efficiency", "(measured)"), ">10.1%")
    )
    predict = partial(
        predict_step, small_lovt(config), measured["alone"], contention, links, rows=config.batch
    )
    first = min(config.ranks)
    steps = {ranks: predict(ranks=ranks, cores=available_cores()) for ranks in config.ranks}
    for ranks, parts in steps.items():
        predicted, together = sum(parts), measured[ranks]
        efficiency = sum(steps[first]) / predicted, measured[first] / together
        error = predicted / together - 1
        table.row(ranks, config.batch, *parts, predicted, together, error, *efficiency)
    print("  efficiency: pairs a second and rank against the first line's")
    if 1 in config.ranks:
        print("  1 rank is measured twice: its error is the noise of this machine")
    by_kind = {kind: link._asdict() for kind, link in links.items()}
    harness.conclude([], {"rows": table.rows, "links": by_kind})


def measure(config: ScalingBenchmarkConfig) -> dict[Measured, float]:
    """Median seconds over the rounds and their processes."""
    start = harness.in_fresh_processes
    measures: dict[str, Callable[[], list[dict[Measured, float]]]] = {
        "alone": partial(start, _time_step, [(config, "alone")]),
        "side by side": partial(start, _time_step, [(config, "side by side")] * PAIR),
        "collectives": partial(start, _time_collectives, [()] * PAIR, as_ranks=True),
    }
    for ranks in config.ranks:
        measures[f"{ranks} ranks"] = partial(
            start, _time_step, [(config, ranks)] * ranks, as_ranks=True
        )
    found: defaultdict[Measured, list[float]] = defaultdict(list)
    for rounds in harness.take_turns(measures, turns=config.rounds, warmup=0).values():
        for process in (process for each in rounds for process in each):
            for key, seconds in process.items():
                found[key].append(seconds)
    return {key: statistics.median(each) for key, each in found.items()}


def small_lovt(config: ScalingBenchmarkConfig) -> Lovt:
    """The method that is trained.

    The trunk's norm is local: in one process a synchronised one is another, fused kernel, and the
    comparison would be of kernels.
    """
    return config.build(VOCABULARY_SIZE, norm="local")


def training_step(engine: Engine, batch: Batch) -> None:
    """The trainer's step without its loader: a bare one, and one gather of numbers."""
    gather_rows(torch.zeros(1, STEP_NUMBERS, dtype=torch.float64))
    bare_training.bare_step(engine, batch)


def _time_step(config: ScalingBenchmarkConfig, name: Measured) -> dict[Measured, float]:
    """Median seconds of a step, of all ranks together where there are some."""
    with harness.joined() as engine:
        bare_training.prepare(engine, small_lovt(config))
        step = partial(training_step, engine, bare_training.noise_batch(config, engine.device))
        return _median_seconds({name: step}, turns=config.steps, warmup=WARMUP_STEPS)


def _time_collectives() -> dict[Measured, float]:
    actions: dict[Measured, Callable[[], object]] = {}
    with harness.joined() as engine:
        for size_bytes in COLLECTIVE_BYTES:
            tensor = torch.ones(size_bytes // FLOAT32_BYTES)
            own = tensor[: len(tensor) // engine.world_size].clone().requires_grad_()
            actions["all_reduce", size_bytes] = partial(sum_over_ranks, tensor)
            actions["all_gather", size_bytes] = partial(gather_rows, own)
            actions["reduce_scatter", size_bytes] = partial(
                torch.autograd.grad, gather_rows(own), own, tensor, retain_graph=True
            )
        return _median_seconds(actions, turns=COLLECTIVE_REPEATS, warmup=1)


def _median_seconds(
    actions: Mapping[Measured, Callable[[], object]], *, turns: int, warmup: int
) -> dict[Measured, float]:
    """Of each of the actions, which every rank begins together."""

    def seconds(action: Callable[[], Any]) -> float:
        wait_for_all()
        return harness.seconds_of(action)

    measures = {key: partial(seconds, action) for key, action in actions.items()}
    results = harness.take_turns(measures, turns=turns, warmup=warmup)
    return {key: statistics.median(each) for key, each in results.items()}

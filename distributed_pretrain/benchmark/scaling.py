"""A step on several ranks as `scaling_model` predicts it, and as real runs over gloo measure it.

Steps in one process, the same in two that send nothing, and collectives of two ranks give the
prediction. Each round takes all measurements.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from data_shards.processes import available_cores
from distributed_pretrain.batch import Batch
from distributed_pretrain.benchmark import harness
from distributed_pretrain.benchmark.bare_training import (
    LovtSizes,
    bare_step,
    build_lovt,
    noise_batch,
    prepare,
)
from distributed_pretrain.benchmark.scaling_model import (
    BACKWARD_SHARE,
    FLOAT32_BYTES,
    STEP_NUMBERS,
    Collective,
    Link,
    StepTime,
    core_share_slowdown,
    fit_link,
    predict_step,
    step_messages,
)
from distributed_pretrain.methods.lovt.method import Lovt
from distributed_pretrain.ranks import gather_rows, sum_over_ranks, wait_for_all
from distributed_pretrain.training.engine.ddp import Engine

# Collectives are measured between two ranks, and so is what a busy second core costs.
PAIR = 2
COLLECTIVE_BYTES = (2**12, 2**15, 2**18, 2**20, 2**22, 2**24)
COLLECTIVE_REPEATS = 7
VOCABULARY_SIZE, TOKENS = 1024, 64


class ScalingBenchmarkConfig(LovtSizes):
    """`batch` pairs a rank (`weak`) or in all (`strong`), on each number of `ranks` in turn.

    The sizes are those of a small LoVT, about that of configs/pretrain/lovt_small.yaml.
    """

    batch: PositiveInt = 16
    image_size_px: PositiveInt = 128
    backbone: str = "resnet18"
    width: PositiveFloat = 0.5
    hidden_size: PositiveInt = 128
    layers: PositiveInt = 2
    embedding_dim: PositiveInt = 128
    projection_hidden_dim: PositiveInt = 256
    mode: Literal["weak", "strong"] = "weak"
    ranks: tuple[PositiveInt, ...] = (1, 2, 4)
    steps: PositiveInt = 5
    warmup_steps: PositiveInt = 2
    rounds: PositiveInt = 5
    cores: int = Field(default_factory=available_cores, ge=1)

    @model_validator(mode="after")
    def _ranks_share_the_batch(self) -> ScalingBenchmarkConfig:
        for ranks in self.ranks:
            if self.mode == "strong" and self.batch % ranks:
                raise ValueError(
                    f"batch={self.batch} cannot be shared by {ranks} ranks: use "
                    f"{self.batch - self.batch % ranks or ranks} or another number of ranks"
                )
        return self

    def rows(self, ranks: int) -> int:
        """Pairs of one rank."""
        return self.batch if self.mode == "weak" else self.batch // ranks


@dataclass(frozen=True)
class Measurements:
    """Medians over the rounds.

    `alone` are seconds of a step by pairs, in one process, `contention` how many times longer two
    take side by side that do not communicate; `links` are those of two ranks; `together` are
    seconds of a real step by number of ranks.
    """

    alone: dict[int, float]
    contention: float
    links: dict[Collective, Link]
    together: dict[int, float]


def run(overrides: Sequence[str]) -> None:
    """Measure, predict and print both. Raises InputError for a bad override."""
    config = harness.read_settings(ScalingBenchmarkConfig, overrides, verb="scaling")
    measured = measure(config)
    print(
        f"Predicted and measured: a small LoVT, gloo, {config.cores} cores, one thread a rank, "
        f"{config.mode} scaling of {config.batch} pairs, load {os.getloadavg()[0]:.1f} at the end\n"
        f"  two processes that do not communicate take {measured.contention:.2f} times as long"
    )
    for kind, link in measured.links.items():
        microseconds, megabytes = 1e6 * link.latency_seconds, link.bytes_per_second / 1e6
        print(f"  {kind:15s} latency {microseconds:7.0f} us, {megabytes:7.0f} MB/s sent by a rank")
    table = harness.Table(
        {"ranks": ">5", "rows": ">5"}
        | dict.fromkeys(("compute s", "waiting s", "predicted s", "measured s"), ">11.3f")
        | dict.fromkeys(("error", "efficiency", "(measured)"), ">10.1%")
    )
    predicted = predict(config, measured)
    first = min(config.ranks)
    for ranks, step in predicted.items():
        seconds, work = measured.together[ranks], config.rows(ranks) / config.rows(first)
        table.row(
            ranks,
            config.rows(ranks),
            step.compute_seconds,
            step.waiting_seconds,
            step.seconds,
            seconds,
            step.seconds / seconds - 1,
            work * predicted[first].seconds / step.seconds,
            work * measured.together[first] / seconds,
        )
    print("  efficiency: pairs a second and rank against the first line's")
    if 1 in config.ranks:
        print("  1 rank is measured twice: its error is the noise of this machine")
    harness.conclude([], {"rows": table.rows, "links": measured.links})


def measure(config: ScalingBenchmarkConfig) -> Measurements:
    """Steps alone, side by side and together, and collectives, in `rounds` rounds."""
    all_rows = tuple(sorted({config.rows(ranks) for ranks in config.ranks}))
    start = partial(harness.in_fresh_processes, _time_steps)
    measures: dict[Any, Callable[[], Any]] = {
        "alone": partial(start, [(config, all_rows)]),
        "side by side": partial(start, [(config, all_rows[-1:])] * PAIR),
        "collectives": partial(
            harness.in_fresh_processes, _time_collectives, [()] * PAIR, as_ranks=True
        ),
    }
    for ranks in config.ranks:
        measures[ranks] = partial(start, [(config, (config.rows(ranks),))] * ranks, as_ranks=True)
    rounds = harness.take_turns(measures, turns=config.rounds, warmup=0)

    def medians(measured: object) -> dict[Any, float]:
        """Over rounds and processes."""
        processes = [process for each in rounds[measured] for process in each]
        return {key: statistics.median(each[key] for each in processes) for key in processes[0]}

    alone, collectives = medians("alone"), medians("collectives")
    (pair,) = medians("side by side").values()
    kinds: tuple[Collective, ...] = ("all_reduce", "all_gather", "reduce_scatter")
    return Measurements(
        alone=alone,
        contention=pair / alone[all_rows[-1]],
        links={
            kind: fit_link(
                kind, {size: collectives[kind, size] for size in COLLECTIVE_BYTES}, ranks=PAIR
            )
            for kind in kinds
        },
        together={ranks: medians(ranks)[config.rows(ranks)] for ranks in config.ranks},
    )


def predict(config: ScalingBenchmarkConfig, measured: Measurements) -> dict[int, StepTime]:
    """A step by number of ranks, from everything but the steps of several ranks.

    One-threaded ranks beyond the number of cores wait for each other, computing and sending; a
    second busy core slows the first. Sending takes a core too, so that it runs beside backward
    only where cores are left.
    """
    method = small_lovt(config)
    steps = {}
    for ranks in config.ranks:
        rows, share = config.rows(ranks), core_share_slowdown(ranks, config.cores)
        steps[ranks] = predict_step(
            measured.alone[rows] * share * (measured.contention if ranks > 1 else 1.0),
            step_messages(method, rows=rows, ranks=ranks),
            ranks=ranks,
            links=measured.links,
            overlap_share=BACKWARD_SHARE if ranks < config.cores else 0.0,
            crowding=share / core_share_slowdown(PAIR, config.cores),
        )
    return steps


def small_lovt(config: ScalingBenchmarkConfig) -> Lovt:
    """The method that is trained.

    The trunk's norm is local: in one process a synchronised one is another, fused kernel, and the
    comparison would be of kernels.
    """
    return build_lovt(config.method(norm="local"), vocabulary_size=VOCABULARY_SIZE)


def training_step(engine: Engine, batch: Batch) -> None:
    """The trainer's step without its loader: a bare one, and one gather of numbers."""
    gather_rows(torch.zeros(1, STEP_NUMBERS, dtype=torch.float64))
    bare_step(engine, batch)


def _time_steps(config: ScalingBenchmarkConfig, all_rows: Sequence[int]) -> dict[int, float]:
    """Median seconds of a step by pairs a process; of all ranks together where there are some."""
    with harness.joined() as engine:
        prepare(engine, small_lovt(config))
        harness.wait_for_neighbours()
        steps = {}
        for rows in all_rows:
            batch = noise_batch(config, engine.device, tokens=TOKENS, rows=rows)
            steps[rows] = partial(training_step, engine, batch)
        return _median_seconds(steps, turns=config.steps, warmup=config.warmup_steps)


def _time_collectives() -> dict[tuple[Collective, int], float]:
    """Median seconds by the size of the message, as `Message` counts it."""
    actions: dict[tuple[Collective, int], Callable[[], object]] = {}
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
    actions: Mapping[harness.KeyT, Callable[[], object]], *, turns: int, warmup: int
) -> dict[harness.KeyT, float]:
    """Of each of the actions, which every rank begins together."""

    def seconds(action: Callable[[], object]) -> float:
        wait_for_all()
        return harness.seconds_of(action)

    measures = {key: partial(seconds, action) for key, action in actions.items()}
    results = harness.take_turns(measures, turns=turns, warmup=warmup)
    return {key: statistics.median(each) for key, each in results.items()}

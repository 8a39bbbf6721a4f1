"""A step on several ranks as a model predicts it, and as real runs over gloo measure it.

Steps in one process, the same in two that send nothing, and collectives of two ranks give the
prediction. Each round takes all measurements. docs/scaling.md has what the model says of a cluster.
"""

from __future__ import annotations

import os
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from pydantic import PositiveInt

from data_shards.processes import available_cores
from distributed_pretrain.batch import Batch
from distributed_pretrain.benchmark import harness
from distributed_pretrain.benchmark.step import LovtSizes, bare_step, noise_batch, prepare
from distributed_pretrain.methods.lovt.method import Lovt
from distributed_pretrain.ranks import gather_rows, sum_over_ranks, wait_for_all
from distributed_pretrain.training.engine.ddp import Engine

Collective: TypeAlias = Literal["all_reduce", "all_gather", "reduce_scatter"]

# Collectives are measured between two ranks, and so is what a busy second core costs.
PAIR = 2
# Hops of size / N bytes a rank in a ring: an all-reduce is a reduce-scatter and an all-gather.
COLLECTIVES: dict[Collective, int] = {"all_reduce": 2, "all_gather": 1, "reduce_scatter": 1}
COLLECTIVE_BYTES = (2**12, 2**15, 2**18, 2**20, 2**22, 2**24)
COLLECTIVE_REPEATS = 7
WARMUP_STEPS = 2
VOCABULARY_SIZE = 1024

FLOAT32_BYTES, FLOAT64_BYTES = 4, 8
# The gradients are there after the forward pass, one third of the step's operations.
BACKWARD_SHARE = 2 / 3
# Sums over ranks of how many samples are real: one for each of LoVT's losses.
SAMPLE_COUNTS = 3
# Loss terms, norm, counts and waits that every step brings together for its record, about.
STEP_NUMBERS = 12

# A step in one process "alone", in two "side by side" that do not communicate, or on a number of
# ranks together; or a collective of two ranks by its size in bytes, as `Message` counts it.
Measured: TypeAlias = str | int | tuple[Collective, int]


class Settings(LovtSizes):
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


def run(config: Settings) -> None:
    """Measure, predict and print both."""
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


def measure(config: Settings) -> dict[Measured, float]:
    """Median seconds over the rounds and their processes."""
    start = harness.in_fresh_processes
    measures: dict[Measured, Callable[[], list[dict[Measured, float]]]] = {
        "alone": partial(start, _time_step, [(config, "alone")]),
        "side by side": partial(start, _time_step, [(config, "side by side")] * PAIR),
        "collectives": partial(start, _time_collectives, [()] * PAIR, as_ranks=True),
    }
    for ranks in config.ranks:
        measures[ranks] = partial(start, _time_step, [(config, ranks)] * ranks, as_ranks=True)
    found: defaultdict[Measured, list[float]] = defaultdict(list)
    for rounds in harness.take_turns(measures, turns=config.rounds, warmup=0).values():
        for process in (process for each in rounds for process in each):
            for key, seconds in process.items():
                found[key].append(seconds)
    return {key: statistics.median(each) for key, each in found.items()}


def small_lovt(config: Settings) -> Lovt:
    """The method that is trained."""
    # In one process a synchronised norm is another, fused kernel: that would be compared too.
    return config.build(VOCABULARY_SIZE, norm="local")


def training_step(engine: Engine, batch: Batch) -> None:
    """The trainer's step without its loader: a bare one, and one gather of numbers."""
    gather_rows(torch.zeros(1, STEP_NUMBERS, dtype=torch.float64))
    bare_step(engine, batch)


def _time_step(config: Settings, name: Measured) -> dict[Measured, float]:
    """Median seconds of a step, of all ranks together where there are some."""
    with harness.joined() as engine:
        prepare(engine, small_lovt(config))
        step = partial(training_step, engine, noise_batch(config, engine.device))
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


# The model: rates, latencies and sizes come in, seconds go out.


class Message(NamedTuple):
    """`times` collectives of `size_bytes` each: of the summed tensor, or of all ranks' rows.

    One that `overlaps` runs beside the backward pass.
    """

    collective: Collective
    size_bytes: float
    times: int = 1
    overlaps: bool = False


class Link(NamedTuple):
    """What a rank's sending costs: `latency_seconds` a hop, then `bytes_per_second`."""

    latency_seconds: float
    bytes_per_second: float


def collective_seconds(
    collective: Collective, size_bytes: float, *, ranks: int, link: Link
) -> float:
    """Seconds of one collective in a ring of `ranks`, 0 for a single one."""
    hop = link.latency_seconds + size_bytes / ranks / link.bytes_per_second
    return COLLECTIVES[collective] * (ranks - 1) * hop


def fit_link(collective: Collective, seconds: Mapping[int, float], *, ranks: int) -> Link:
    """The link whose `collective_seconds` come nearest, relatively, to those measured by size.

    Negative latencies, which noise can give, become 0.
    """
    hops, measured = COLLECTIVES[collective] * (ranks - 1), np.array(list(seconds.values()))
    slope, offset = np.polyfit(list(seconds), measured, 1, w=1 / measured)
    return Link(max(0.0, float(offset) / hops), hops / ranks / float(slope))


def step_messages(method: Lovt, *, rows: int, ranks: int) -> list[Message]:
    """All collectives of one step of DDP with `rows` pairs a rank; none in one process."""
    if ranks == 1:
        return []
    embeddings = FLOAT32_BYTES * rows * ranks * method.config.embedding_dim
    norm = FLOAT64_BYTES * (2 * method.config.projection_hidden_dim + 1)
    trained = sum(p.numel() for p in method.parameters() if p.requires_grad)
    return [
        Message("all_gather", embeddings, times=2),
        Message("reduce_scatter", embeddings, times=2),  # of their gradients
        Message("all_gather", rows * ranks),  # the sample mask
        Message("all_reduce", FLOAT32_BYTES, times=SAMPLE_COUNTS),
        # Mean, square and count of four heads' norms, forward and backward.
        Message("all_reduce", norm, times=4 * 2),
        Message("all_reduce", FLOAT32_BYTES * trained, overlaps=True),
        Message("all_gather", FLOAT64_BYTES * STEP_NUMBERS * ranks),
    ]


def waiting_seconds(
    compute_seconds: float,
    messages: Sequence[Message],
    *,
    ranks: int,
    links: Mapping[Collective, Link],
    overlap_share: float = BACKWARD_SHARE,
    crowding: float = 1.0,
) -> float:
    """What exchanging `messages` adds to a step that computes for `compute_seconds`.

    Overlapping messages cost what remains beyond `overlap_share` of the computation, which is 0
    where nothing but the computing cores can move bytes. `crowding` is how much slower ranks send
    that have to share cores.
    """
    seconds = {True: 0.0, False: 0.0}
    for kind, size_bytes, times, overlaps in messages:
        one = collective_seconds(kind, size_bytes, ranks=ranks, link=links[kind])
        seconds[overlaps] += crowding * times * one
    return seconds[False] + max(0.0, seconds[True] - overlap_share * compute_seconds)


def core_share_slowdown(ranks: int, cores: int) -> float:
    """How many times longer one-threaded ranks take when they are more than the cores."""
    return max(1.0, ranks / cores)


def predict_step(
    method: Lovt,
    alone_seconds: float,
    contention: float,
    links: Mapping[Collective, Link],
    *,
    rows: int,
    ranks: int,
    cores: int,
) -> tuple[float, float]:
    """Seconds of a step with `rows` pairs a rank that are spent computing, and waiting.

    One process takes `alone_seconds`, and `contention` times as long beside another that sends
    nothing; `links` are those of two ranks. One-threaded ranks beyond the number of cores wait for
    each other, computing and sending. Sending takes a core too, so that it runs beside backward
    only where cores are left.
    """
    share = core_share_slowdown(ranks, cores)
    computing = alone_seconds * share * (contention if ranks > 1 else 1.0)
    waiting = waiting_seconds(
        computing,
        step_messages(method, rows=rows, ranks=ranks),
        ranks=ranks,
        links=links,
        overlap_share=BACKWARD_SHARE if ranks < cores else 0.0,
        crowding=share / core_share_slowdown(PAIR, cores),
    )
    return computing, waiting

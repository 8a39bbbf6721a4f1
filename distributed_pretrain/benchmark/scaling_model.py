"""Seconds of a training step on N ranks: what each computes, and what they send each other.

A rank holds b pairs of a global batch of B = N b. Nothing here is measured: rates, latencies and
sizes come in, seconds go out. docs/scaling.md has what these formulas say of a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from distributed_pretrain.methods.lovt.method import Lovt

Collective: TypeAlias = Literal["all_reduce", "all_gather", "reduce_scatter"]

FLOAT32_BYTES, FLOAT64_BYTES = 4, 8
# The gradients are there after the forward pass, one third of the step's operations.
BACKWARD_SHARE = 2 / 3
# Sums over ranks of how many samples are real: one for each of LoVT's losses.
SAMPLE_COUNTS = 3
# Loss terms, norm, counts and waits that every step brings together for its record, about.
STEP_NUMBERS = 12


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


def ring_hops(collective: Collective, ranks: int) -> int:
    """Hops of size / N bytes; an all-reduce is a reduce-scatter and an all-gather."""
    return (2 if collective == "all_reduce" else 1) * (ranks - 1)


def collective_seconds(
    collective: Collective, size_bytes: float, *, ranks: int, link: Link
) -> float:
    """Seconds of one collective in a ring of `ranks`, 0 for a single one."""
    hop = link.latency_seconds + size_bytes / ranks / link.bytes_per_second
    return ring_hops(collective, ranks) * hop


def fit_link(collective: Collective, seconds: Mapping[int, float], *, ranks: int) -> Link:
    """The link whose `collective_seconds` come nearest to those measured by size in bytes.

    Nearest in relative error. Negative latencies, which noise can give, become 0.
    """
    hops, measured = ring_hops(collective, ranks), np.array(list(seconds.values()))
    slope, offset = np.polyfit(list(seconds), measured, 1, w=1 / measured)
    return Link(max(0.0, float(offset) / hops), hops / ranks / float(slope))


def step_messages(method: Lovt, *, rows: int, ranks: int) -> list[Message]:
    """All collectives of one step of DDP with `rows` pairs a rank; none in one process.

    Two gathers of embeddings with the reduce-scatter of their gradients, the sample mask, the
    counts of real samples, per synchronised norm (of the four heads) one sum forward and one
    backward (of mean, square and count, float64), the gradients (float32, in the shadow of
    backward), and the numbers that are logged.
    """
    if ranks == 1:
        return []
    embeddings = FLOAT32_BYTES * rows * ranks * method.config.embedding_dim
    norm = FLOAT64_BYTES * (2 * method.config.projection_hidden_dim + 1)
    trained = sum(p.numel() for p in method.parameters() if p.requires_grad)
    return [
        Message("all_gather", embeddings, times=2),
        Message("reduce_scatter", embeddings, times=2),
        Message("all_gather", rows * ranks),
        Message("all_reduce", FLOAT32_BYTES, times=SAMPLE_COUNTS),
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
        crowding=share / core_share_slowdown(2, cores),
    )
    return computing, waiting

"""Seconds of a training step on N ranks: what each computes, and what they send each other.

A rank holds b pairs of a global batch of B = N b. Nothing here is measured or looked up: rates,
latencies and sizes come in, seconds and shares go out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Collective = Literal["all_reduce", "all_gather", "reduce_scatter"]

FLOAT32_BYTES = 4
FLOAT64_BYTES = 8
# The gradients are there after the forward pass, one third of the step's operations.
BACKWARD_SHARE = 2 / 3
# Sums over ranks of how many samples are real: one for each of LoVT's losses.
SAMPLE_COUNTS = 3
# Loss terms, norm, counts and waits that every step brings together for telemetry, about.
STEP_NUMBERS = 12


@dataclass(frozen=True)
class Message:
    """`count` collectives of `size_bytes` each: of the summed tensor, or of all ranks' rows.

    One that `overlaps` runs beside the backward pass.
    """

    collective: Collective
    size_bytes: float
    count: int = 1
    overlaps: bool = False


@dataclass(frozen=True)
class Link:
    """What a rank's sending costs: `latency_seconds` a hop, then `bytes_per_second`.

    With `trees` small sums take the shorter of a ring and a tree, as NCCL's do; gloo has rings.
    """

    latency_seconds: float
    bytes_per_second: float
    trees: bool = False


def collective_seconds(
    collective: Collective, size_bytes: float, *, ranks: int, link: Link
) -> float:
    """Seconds of one collective among `ranks`, 0 for a single one.

    In a ring each of N - 1 hops carries size / N bytes; an all-reduce is a reduce-scatter and an
    all-gather, so it goes round twice. A tree takes log2 N hops up and as many down with all.
    """
    if ranks == 1:
        return 0.0
    rounds = 2 if collective == "all_reduce" else 1
    hop = link.latency_seconds + size_bytes / ranks / link.bytes_per_second
    ring = rounds * (ranks - 1) * hop
    if not link.trees or collective != "all_reduce":
        return ring
    levels = math.ceil(math.log2(ranks))
    tree = 2 * levels * (link.latency_seconds + size_bytes / link.bytes_per_second)
    return min(ring, tree)


def fit_link(
    collective: Collective, sizes_bytes: Sequence[float], seconds: Sequence[float], *, ranks: int
) -> Link:
    """The link whose `collective_seconds` come nearest to those measured, in relative error.

    Negative latencies, which noise can give, become 0.
    """
    rounds = 2 if collective == "all_reduce" else 1
    hops = rounds * (ranks - 1)
    measured = np.array(seconds, dtype=float)
    design = np.stack([np.full(len(measured), hops), hops * np.array(sizes_bytes) / ranks], axis=1)
    latency, seconds_a_byte = np.linalg.lstsq(
        design / measured[:, None], np.ones(len(measured)), rcond=None
    )[0]
    if latency < 0:
        latency, seconds_a_byte = 0.0, float(np.median(measured / design[:, 1]))
    return Link(float(latency), 1 / float(seconds_a_byte))


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step; `hidden_seconds` of sending run beside the computation."""

    compute_seconds: float
    exposed_seconds: float
    hidden_seconds: float = 0.0

    @property
    def seconds(self) -> float:
        """What the clock shows."""
        return self.compute_seconds + self.exposed_seconds


def predict_step(
    compute_seconds: float,
    messages: Sequence[Message],
    *,
    ranks: int,
    links: Mapping[Collective, Link],
    overlap_share: float = BACKWARD_SHARE,
    crowding: float = 1.0,
) -> StepTime:
    """A step that computes for `compute_seconds` and exchanges `messages`.

    Overlapping messages cost what remains beyond `overlap_share` of the computation, which is 0
    where nothing but the computing cores can move bytes. `crowding` is how much slower ranks send
    that have to share cores.
    """
    waiting, overlapping = 0.0, 0.0
    for message in messages:
        seconds = (
            message.count
            * crowding
            * collective_seconds(
                message.collective,
                message.size_bytes,
                ranks=ranks,
                link=links[message.collective],
            )
        )
        if message.overlaps:
            overlapping += seconds
        else:
            waiting += seconds
    hidden = min(overlapping, overlap_share * compute_seconds)
    return StepTime(compute_seconds, waiting + overlapping - hidden, hidden)


def core_share_slowdown(ranks: int, cores: int) -> float:
    """How many times longer one-threaded ranks take when they are more than the cores."""
    return max(1.0, ranks / cores)


@dataclass(frozen=True)
class Exchange:
    """What a method sends in a step: its sizes, in numbers, not bytes.

    `embedding_dim` of the gathered embeddings; `head_norms` and `trunk_norms` are the channels of
    norms that share statistics; `gathered_dim` numbers a pair that are gathered besides, with
    gradient (the words of LIMITR's global negatives).
    """

    embedding_dim: int
    trained_parameters: int
    head_norms: tuple[int, ...]
    trunk_norms: tuple[int, ...] = ()
    gathered_dim: int = 0


def step_messages(exchange: Exchange, *, rows: int, ranks: int) -> list[Message]:
    """All collectives of one step of DDP with `rows` pairs a rank; none in one process.

    Two gathers of embeddings with the reduce-scatter of their gradients, the sample mask, the
    counts of real samples, per synchronised norm one sum forward and one backward (of mean,
    square and count, float64), the gradients (float32, in the shadow of backward), and the
    numbers that are logged.
    """
    if ranks == 1:
        return []
    norms = (*exchange.head_norms, *exchange.trunk_norms)
    embeddings = FLOAT32_BYTES * rows * ranks * exchange.embedding_dim
    messages = [
        Message("all_gather", embeddings, count=2),
        Message("reduce_scatter", embeddings, count=2),
        Message("all_gather", rows * ranks),
        Message("all_reduce", FLOAT32_BYTES, count=SAMPLE_COUNTS),
        *(Message("all_reduce", FLOAT64_BYTES * (2 * width + 1), count=2) for width in norms),
        Message("all_reduce", FLOAT32_BYTES * exchange.trained_parameters, overlaps=True),
        Message("all_gather", FLOAT64_BYTES * STEP_NUMBERS * ranks),
    ]
    if exchange.gathered_dim:
        local = FLOAT32_BYTES * rows * ranks * exchange.gathered_dim
        messages += [Message("all_gather", local), Message("reduce_scatter", local)]
    return messages


def global_loss_flops(*, rows: int, ranks: int, embedding_dim: int, chunked: bool = False) -> float:
    """Operations of a rank's similarities of images and reports, forward and backward.

    One b x b block serves both directions in one process; b x B blocks of several ranks serve one
    each. Three products a block (the similarities and two gradients), four when a chunked loss
    computes the similarities again.
    """
    blocks = 1 if ranks == 1 else 2
    products = 4 if chunked else 3
    return float(blocks * products * 2 * rows * rows * ranks * embedding_dim)

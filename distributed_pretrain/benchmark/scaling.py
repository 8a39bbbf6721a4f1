"""What a step costs on many ranks: on paper for a cluster, and predicted against measured here.

The tables need no measurement. The check does: steps in one process, the same
side by side, and collectives of two ranks give a prediction for 1, 2 and 4 ranks on this machine,
which real runs over gloo then meet. Measurements of a round follow each other, so that a slow
minute of the machine hits all of them.
"""

from __future__ import annotations

import json
import os
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from data_shards.processes import available_cores
from data_shards.profiles import Config, parse_overrides, validate
from distributed_pretrain.benchmark.scaling_cluster import ClusterConfig, paper_setting
from distributed_pretrain.benchmark.scaling_model import (
    BACKWARD_SHARE,
    Collective,
    Link,
    StepTime,
    core_share_slowdown,
    fit_link,
    predict_step,
    step_messages,
)
from distributed_pretrain.benchmark.scaling_runs import (
    RankJob,
    RankTimes,
    Size,
    build_small_lovt,
    exchange_of,
    time_processes,
)
from distributed_pretrain.benchmark.scaling_tables import cluster_report, draw_efficiency

# Collectives are measured between two ranks, and so is what a busy second core costs.
PAIR = 2


class ScalingBenchmarkConfig(Config):
    """`batch` pairs a rank (`weak`) or in all (`strong`), on each number of `ranks` in turn.

    `check` false prints the tables alone, `tables` false measures alone. `size` tiny is for a
    quick look at whether everything runs. `picture` is where efficiency against ranks is drawn.
    """

    tables: bool = True
    check: bool = True
    picture: Path | None = None
    cluster: ClusterConfig = ClusterConfig()
    mode: Literal["weak", "strong"] = "weak"
    ranks: tuple[PositiveInt, ...] = (1, 2, 4)
    batch: PositiveInt = 16
    size: Size = "small"
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

    `alone` and `side_by_side` are seconds of a step by pairs a process, in one process and in two
    that do not communicate; `collectives` those of two ranks by size in bytes; `together` seconds
    of a real step by number of ranks.
    """

    alone: dict[int, float]
    side_by_side: float
    collectives: dict[Collective, dict[int, float]]
    together: dict[int, float]

    def links(self) -> dict[Collective, Link]:
        """The link of each kind of collective."""
        return {
            kind: fit_link(kind, list(times), list(times.values()), ranks=PAIR)
            for kind, times in self.collectives.items()
        }


def run(overrides: Sequence[str]) -> None:
    """Print the tables and the check, then one line of JSON. Raises InputError for bad input."""
    config = validate(ScalingBenchmarkConfig, parse_overrides(overrides), where="benchmark scaling")
    if config.tables or config.picture is not None:
        cluster, workloads = paper_setting(config.cluster)
        print(cluster_report(cluster, workloads))
        if config.picture is not None:
            draw_efficiency(cluster, workloads, config.picture)
    if config.check:
        measured = measure(config)
        predicted = predict(config, measured)
        print(_check_report(config, measured, predicted))
        print(
            json.dumps(
                {
                    "predicted_step_seconds": {n: step.seconds for n, step in predicted.items()},
                    "measured_step_seconds": measured.together,
                    "links": {kind: asdict(link) for kind, link in measured.links().items()},
                }
            )
        )


def measure(config: ScalingBenchmarkConfig) -> Measurements:
    """Steps alone, side by side and together, and collectives, in `rounds` rounds."""
    rows = tuple(sorted({config.rows(ranks) for ranks in config.ranks}))
    job = RankJob(config.size, rows, config.steps, config.warmup_steps)
    alone, together = defaultdict[int, list[float]](list), defaultdict[int, list[float]](list)
    pairs: list[float] = []
    collectives: list[RankTimes] = []
    for _ in range(config.rounds):
        for size, seconds in time_processes(job, processes=1)[0].step_seconds.items():
            alone[size].append(seconds)
        for times in time_processes(job, processes=PAIR, as_ranks=False):
            pairs.append(times.step_seconds[rows[-1]])
        only_collectives = RankJob(config.size, (), 0, 0, collectives=True)
        collectives.append(time_processes(only_collectives, processes=PAIR)[0])
        for ranks in config.ranks:
            own = RankJob(config.size, (config.rows(ranks),), config.steps, config.warmup_steps)
            times = time_processes(own, processes=ranks)[0]
            together[ranks].append(times.step_seconds[config.rows(ranks)])
    return Measurements(
        alone={size: statistics.median(seconds) for size, seconds in alone.items()},
        side_by_side=statistics.median(pairs),
        collectives={
            kind: {
                size: statistics.median(each.collective_seconds[kind][size] for each in collectives)
                for size in sizes
            }
            for kind, sizes in collectives[0].collective_seconds.items()
        },
        together={ranks: statistics.median(seconds) for ranks, seconds in together.items()},
    )


def predict(config: ScalingBenchmarkConfig, measured: Measurements) -> dict[int, StepTime]:
    """A step on each number of ranks, from everything but the steps of several ranks.

    One-threaded ranks beyond the number of cores wait for each other, computing and sending; a
    second busy core slows the first (`side_by_side` over `alone`). Sending takes a core too, so
    that it runs beside backward only where cores are left.
    """
    exchange = exchange_of(build_small_lovt(config.size))
    links = measured.links()
    contention = measured.side_by_side / measured.alone[max(measured.alone)]
    steps = {}
    for ranks in config.ranks:
        rows = config.rows(ranks)
        slowdown = core_share_slowdown(ranks, config.cores) * (contention if ranks > 1 else 1.0)
        steps[ranks] = predict_step(
            measured.alone[rows] * slowdown,
            step_messages(exchange, rows=rows, ranks=ranks),
            ranks=ranks,
            links=links,
            overlap_share=BACKWARD_SHARE if ranks < config.cores else 0.0,
            crowding=core_share_slowdown(ranks, config.cores)
            / core_share_slowdown(PAIR, config.cores),
        )
    return steps


def _check_report(
    config: ScalingBenchmarkConfig, measured: Measurements, predicted: dict[int, StepTime]
) -> str:
    load = os.getloadavg()[0]
    lines = [
        "",
        f"Predicted and measured: {config.size} LoVT, gloo, {config.cores} cores, one thread a "
        f"rank, {config.mode} scaling of {config.batch} pairs, load {load:.1f} at the end",
        f"  two processes that do not communicate take {_contention(measured):.2f} times as long",
    ]
    for kind, link in measured.links().items():
        lines.append(
            f"  {kind:15s} latency {1e6 * link.latency_seconds:7.0f} us, "
            f"{link.bytes_per_second / 1e6:7.0f} MB/s sent by a rank"
        )
    lines.append("  ranks  rows  compute s  waiting s  predicted s  measured s   error  efficiency")
    first = min(config.ranks)
    for ranks, step in predicted.items():
        seconds = measured.together[ranks]
        lines.append(
            f"  {ranks:5d} {config.rows(ranks):5d} {step.compute_seconds:10.3f} "
            f"{step.exposed_seconds:10.3f} {step.seconds:12.3f} {seconds:11.3f} "
            f"{step.seconds / seconds - 1:+7.1%} "
            f"{_efficiency(config, first, predicted[first].seconds, ranks, step.seconds):6.1%} "
            f"({_efficiency(config, first, measured.together[first], ranks, seconds):.1%})"
        )
    lines.append("  efficiency: pairs a second and rank against the first line's; (measured)")
    if 1 in config.ranks:
        lines.append("  1 rank is measured twice: its error is the noise of this machine")
    return "\n".join(lines)


def _contention(measured: Measurements) -> float:
    return measured.side_by_side / measured.alone[max(measured.alone)]


def _efficiency(
    config: ScalingBenchmarkConfig, first: int, first_seconds: float, ranks: int, seconds: float
) -> float:
    return config.rows(ranks) / seconds / (config.rows(first) / first_seconds)

"""Time and peak memory of the global contrastive loss against the batch, in one run.

The plain, the chunked and the gathered forms stand beside rows in the manner of open_clip's
ClipLoss: the whole matrix of logits and two cross entropies, left to automatic differentiation.
Everything is forward and backward, from raw embeddings to their gradients. The forms take turns,
and a ratio is one of neighbours in time, so that a slow minute of the machine hits both.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal, TypeAlias, TypeVar

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor
from torch.nn import functional as F

from data_shards.processes import available_cores
from data_shards.profiles import Config, parse_overrides, validate
from distributed_pretrain.benchmark.memory import in_fresh_processes, peak_bytes_above_start
from distributed_pretrain.losses.contrastive import global_contrastive_loss
from distributed_pretrain.ranks import gather_rows, wait_for_all
from distributed_pretrain.training.engine.ddp import Engine
from distributed_pretrain.training.settings import TrainingConfig

TARGET_TIME_RATIO = 1.5
TARGET_TIME_FROM_BATCH = 8192
# Forward takes one matrix product and backward two; recomputing adds one.
FLOOR_TIME_RATIO = 4 / 3
TARGET_BIG_BATCH_BYTES = 2**30

TEMPERATURE = 0.1
WARM_UP_BATCH = 8

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
ResultT = TypeVar("ResultT")


class LossBenchmarkConfig(Config):
    """Batches over all ranks. Threads are shared out between ranks; `ranks=1` gathers nothing.

    On a machine that others use too, `clock=cpu threads=1` counts the processor's seconds instead
    of waiting ones (with more threads, those that wait for each other would count as well).
    """

    batch_sizes: tuple[PositiveInt, ...] = (1024, 2048, 4096, 8192, 16384)
    big_batch: PositiveInt | None = Field(32768, description="the chunked form alone; null: none")
    dim: PositiveInt = 512
    chunk_size: PositiveInt = 512
    ranks: PositiveInt = 2
    repeats: PositiveInt = 5
    threads: PositiveInt = Field(default_factory=available_cores)
    clock: Literal["wall", "cpu"] = "wall"
    device: Literal["cpu", "cuda"] = "cpu"

    @model_validator(mode="after")
    def _ranks_have_equal_rows_and_a_device(self) -> LossBenchmarkConfig:
        for batch in self.batch_sizes:
            if batch % self.ranks:
                raise ValueError(
                    f"batch_sizes: {batch} is not divisible by ranks={self.ranks}: "
                    f"use {batch - batch % self.ranks or self.ranks}"
                )
        if self.device == "cuda" and torch.cuda.device_count() < self.ranks:
            raise ValueError(
                f"device=cuda: {self.ranks} ranks need as many GPUs, "
                f"found {torch.cuda.device_count()}: set ranks, or device=cpu"
            )
        if self.device == "cuda" and self.clock == "cpu":
            raise ValueError("clock=cpu does not see the work of a GPU: use clock=wall")
        return self


@dataclass(frozen=True)
class Job:
    """What the processes of one measurement share."""

    batch: int
    ranks: int
    port: int
    config: LossBenchmarkConfig


@dataclass(frozen=True)
class Row:
    """One form at one batch: of the slowest rank the seconds, of the largest the bytes.

    `time_ratios` are to the plain form on the same ranks, one for each repetition.
    """

    batch: int
    ranks: int
    form: str
    seconds: float
    time_ratios: list[float]
    peak_bytes: int

    @property
    def time_ratio(self) -> float:
        """The median of the ratios to the plain form's time."""
        return statistics.median(self.time_ratios)


def run(overrides: Sequence[str]) -> None:
    """Measure and print a table, then one line of JSON. Raises InputError for a bad override."""
    config = validate(LossBenchmarkConfig, parse_overrides(overrides), where="benchmark loss")
    print(
        f"forward + backward in float32, dim {config.dim}, chunks of {config.chunk_size} rows, "
        f"{config.threads} threads in all, {config.device}; median {config.clock} seconds of "
        f"{config.repeats}"
    )
    print(f"  {'batch':>6s} ranks  {'form':22s} {'seconds':>8s}  to plain (spread)     peak MiB")
    rows = []
    for row in measure(config):
        rows.append(row)
        spread = f"{row.time_ratio:5.2f} ({min(row.time_ratios):.2f} to {max(row.time_ratios):.2f})"
        print(
            f"  {row.batch:6d} {row.ranks:5d}  {row.form:22s} {row.seconds:8.3f}  {spread:20s} "
            f"{row.peak_bytes / 2**20:9.0f}",
            flush=True,
        )
    big_bytes = None if config.big_batch is None else _big_batch_bytes(config, config.big_batch)
    print("  peaks are above the inputs, their gradients counted")
    _print_verdicts(rows, config, big_bytes)
    print(
        json.dumps(
            {
                "config": config.model_dump(),
                "rows": [asdict(row) | {"time_ratio": row.time_ratio} for row in rows],
                "big_batch_peak_bytes": big_bytes,
            }
        )
    )


def measure(config: LossBenchmarkConfig) -> Iterator[Row]:
    """Every form at every batch, in one process and then on ranks."""
    for batch in config.batch_sizes:
        for ranks in sorted({1, config.ranks}):
            by_rank = _on_ranks(_seconds_by_form, batch, ranks, config)
            slowest = {
                form: [max(turn) for turn in zip(*(each[form] for each in by_rank), strict=True)]
                for form in by_rank[0]
            }
            for form, seconds in slowest.items():
                pairs = zip(seconds, slowest["plain"], strict=True)
                yield Row(
                    batch=batch,
                    ranks=ranks,
                    form=form,
                    seconds=statistics.median(seconds),
                    time_ratios=[own / plain for own, plain in pairs],
                    peak_bytes=max(_on_ranks(_peak_bytes, batch, ranks, config, form)),
                )


def loss_forms(config: LossBenchmarkConfig, rank: int) -> dict[str, Loss]:
    """The forms that are compared, each from raw embeddings to a loss."""
    ours = partial(global_contrastive_loss, temperature=TEMPERATURE)
    forms: dict[str, Loss] = {
        "plain": ours,
        "chunked": partial(ours, chunk_size=config.chunk_size),
        "open_clip": _open_clip_loss,
    }
    # In one process both of its forms are the same.
    if config.ranks > 1:
        forms["open_clip, local loss"] = partial(_open_clip_local_loss, rank=rank)
    return forms


def _open_clip_loss(image: Tensor, report: Tensor) -> Tensor:
    """As with local_loss=False, gather_with_grad=True: every rank has all logits."""
    images = gather_rows(F.normalize(image, dim=-1))
    reports = gather_rows(F.normalize(report, dim=-1))
    logits = images @ reports.T / TEMPERATURE
    labels = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def _open_clip_local_loss(image: Tensor, report: Tensor, *, rank: int) -> Tensor:
    """As with local_loss=True, gather_with_grad=True: this rank's rows against all."""
    image, report = F.normalize(image, dim=-1), F.normalize(report, dim=-1)
    image_logits = image @ gather_rows(report).T / TEMPERATURE
    report_logits = report @ gather_rows(image).T / TEMPERATURE
    labels = torch.arange(len(image), device=image.device) + rank * len(image)
    return (F.cross_entropy(image_logits, labels) + F.cross_entropy(report_logits, labels)) / 2


def _seconds_by_form(rank: int, job: Job) -> dict[str, list[float]]:
    """Seconds of every repetition; the forms take turns, each once unmeasured."""
    clock = time.perf_counter if job.config.clock == "wall" else time.process_time
    with _joined(rank, job) as (device, forms):
        image, report = _embeddings(job.batch // job.ranks, job.config.dim, rank, device)
        seconds: dict[str, list[float]] = {form: [] for form in forms}
        for _ in range(1 + job.config.repeats):
            for form, loss in forms.items():
                # Gradients made anew: their allocation is part of a step.
                image.grad = report.grad = None
                wait_for_all()
                started = clock()
                loss(image, report).backward()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                seconds[form].append(clock() - started)
        return {form: each[1:] for form, each in seconds.items()}


def _peak_bytes(rank: int, job: Job, form: str) -> int:
    """The peak of one form above its inputs, in a process that has done nothing else."""
    with _joined(rank, job) as (device, forms):
        loss = forms[form]
        # The buffers of the libraries are not the loss's.
        loss(*_embeddings(WARM_UP_BATCH, job.config.dim, rank, device)).backward()
        image, report = _embeddings(job.batch // job.ranks, job.config.dim, rank, device)
        wait_for_all()
        return peak_bytes_above_start(lambda: loss(image, report).backward(), device)


@contextmanager
def _joined(rank: int, job: Job) -> Iterator[tuple[torch.device, dict[str, Loss]]]:
    """The device and the forms of this process, meanwhile one of the job's ranks."""
    config = job.config
    torch.set_num_threads(max(1, config.threads // job.ranks))
    forms = loss_forms(config.model_copy(update={"ranks": job.ranks}), rank)
    if job.ranks == 1:
        yield torch.device(config.device), forms
        return
    os.environ |= {
        "ACCELERATE_USE_CPU": str(config.device == "cpu").lower(),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(job.ranks),
        "LOCAL_WORLD_SIZE": str(job.ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(job.port),
    }
    engine = Engine(TrainingConfig(precision="float32"))
    assert engine.world_size == job.ranks, "the environment names the ranks"
    try:
        yield engine.device, forms
    finally:
        # A rank that fails must not leave the others waiting.
        engine.close()


def _embeddings(rows: int, dim: int, rank: int, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rank)
    image, report = (
        torch.randn(rows, dim, generator=generator).to(device).requires_grad_() for _ in range(2)
    )
    return image, report


def _on_ranks(
    function: Callable[..., ResultT],
    batch: int,
    ranks: int,
    config: LossBenchmarkConfig,
    *more: str,
) -> list[ResultT]:
    """What every rank answers, each a new process."""
    job = Job(batch, ranks, _free_port(), config)
    return in_fresh_processes(function, [(rank, job, *more) for rank in range(ranks)])


def _big_batch_bytes(config: LossBenchmarkConfig, batch: int) -> int:
    (peak_bytes,) = _on_ranks(_peak_bytes, batch, 1, config, "chunked")
    print(f"  {batch:6d} {1:5d}  {'chunked':22s} {'':30s} {peak_bytes / 2**20:9.0f}")
    return peak_bytes


def _print_verdicts(
    rows: Sequence[Row], config: LossBenchmarkConfig, big_bytes: int | None
) -> None:
    for row in rows:
        if row.form == "chunked" and row.ranks == 1 and row.batch >= TARGET_TIME_FROM_BATCH:
            verdict = "reached" if row.time_ratio <= TARGET_TIME_RATIO else "MISSED"
            print(
                f"  chunked / plain at batch {row.batch}: {row.time_ratio:.2f}, at most "
                f"{TARGET_TIME_RATIO}: {verdict} (recomputing alone: {FLOOR_TIME_RATIO:.2f})"
            )
    if big_bytes is not None:
        verdict = "reached" if big_bytes < TARGET_BIG_BATCH_BYTES else "MISSED"
        print(f"  chunked at batch {config.big_batch} under 1 GiB above its inputs: {verdict}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

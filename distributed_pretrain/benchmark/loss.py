"""Time and peak memory of the global contrastive loss against the batch, in one run.

The plain, the chunked and the gathered forms stand beside rows in the manner of open_clip's
ClipLoss: the whole matrix of logits and two cross entropies, left to automatic differentiation.
Everything is forward and backward, from raw embeddings to their gradients.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any, TypeAlias, TypeVar

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor
from torch.nn import functional as F

from data_shards.processes import available_cores
from data_shards.profiles import Config
from distributed_pretrain.benchmark import harness
from distributed_pretrain.losses.contrastive import global_contrastive_loss
from distributed_pretrain.ranks import gather_rows, own_rows, wait_for_all, world_size

# Recomputing adds one matrix product to forward's one and backward's two: 4/3 is the floor.
TARGET_TIME_RATIO = 1.5
TARGET_TIME_FROM_BATCH = 8192
TARGET_BIG_BATCH_GIB = 1

TEMPERATURE = 0.1
WARM_UP_BATCH = 8

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
ResultT = TypeVar("ResultT")


class Settings(Config):
    """Batches over all ranks, the chunked form alone with the `big_batch`.

    Threads are shared out between ranks; `ranks=1` gathers nothing.
    """

    batch_sizes: tuple[PositiveInt, ...] = (1024, 2048, 4096, 8192, 16384)
    big_batch: PositiveInt = 32768
    dim: PositiveInt = 512
    chunk_size: PositiveInt = 512
    ranks: PositiveInt = 2
    repeats: PositiveInt = 5
    threads: PositiveInt = Field(default_factory=available_cores)
    device: harness.Device = "cpu"

    @model_validator(mode="after")
    def _ranks_have_equal_rows_and_a_device(self) -> Settings:
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
        return self


def run(config: Settings) -> None:
    """Measure and print."""
    print(
        f"forward + backward in float32, dim {config.dim}, chunks of {config.chunk_size} rows, "
        f"{config.threads} threads in all, {config.device}; median seconds of {config.repeats} "
        "(the slowest rank's); peaks are above the inputs, their gradients counted"
    )
    columns = {"batch": ">6", "ranks": ">5", "form": "<22", "seconds": ">8.3f"}
    table = harness.Table(columns | {"to plain (spread)": "<24", "peak MiB": ">9.1f"})
    targets = []
    for batch, ranks in product(config.batch_sizes, sorted({1, config.ranks})):
        by_rank = _on_ranks(_seconds_by_form, config, batch, ranks)
        slowest = {
            form: [max(turn) for turn in zip(*(each[form] for each in by_rank), strict=True)]
            for form in by_rank[0]
        }
        for form, seconds in slowest.items():
            to_plain = harness.Ratios(seconds, slowest["plain"])
            peak = max(_on_ranks(_peak_bytes, config, batch, ranks, form)) / 2**20
            table.row(batch, ranks, form, statistics.median(seconds), to_plain, peak)
            if form == "chunked" and ranks == 1 and batch >= TARGET_TIME_FROM_BATCH:
                name = f"chunked / plain at batch {batch}"
                targets.append(harness.Target(name, to_plain.median, TARGET_TIME_RATIO))
    (peak,) = _on_ranks(_peak_bytes, config, config.big_batch, 1, "chunked")
    name = f"GiB of chunked at batch {config.big_batch}"
    targets.append(harness.Target(name, peak / 2**30, TARGET_BIG_BATCH_GIB))
    harness.conclude(targets, {"config": config.model_dump(), "rows": table.rows})


def loss_forms(chunk_size: int) -> dict[str, Loss]:
    """The forms that are compared, each from raw embeddings to a loss."""
    ours = partial(global_contrastive_loss, temperature=TEMPERATURE)
    forms: dict[str, Loss] = {
        "plain": ours,
        "chunked": partial(ours, chunk_size=chunk_size),
        "open_clip": _open_clip_loss,
    }
    # In one process both of its forms are the same.
    return forms if world_size() == 1 else forms | {"open_clip, local loss": open_clip_local_loss}


def _open_clip_loss(image: Tensor, report: Tensor) -> Tensor:
    """As with local_loss=False, gather_with_grad=True: every rank has all logits."""
    images = gather_rows(F.normalize(image, dim=-1))
    reports = gather_rows(F.normalize(report, dim=-1))
    logits = images @ reports.T / TEMPERATURE
    labels = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2


def open_clip_local_loss(image: Tensor, report: Tensor) -> Tensor:
    """As with local_loss=True, gather_with_grad=True: this rank's rows against all."""
    image, report = F.normalize(image, dim=-1), F.normalize(report, dim=-1)
    image_logits = image @ gather_rows(report).T / TEMPERATURE
    report_logits = report @ gather_rows(image).T / TEMPERATURE
    labels = torch.arange(len(image), device=image.device) + own_rows(len(image)).start
    return (F.cross_entropy(image_logits, labels) + F.cross_entropy(report_logits, labels)) / 2


def _on_ranks(
    function: Callable[..., ResultT], config: Settings, batch: int, ranks: int, *more: Any
) -> list[ResultT]:
    """What every rank answers, each a new process."""
    return harness.in_fresh_processes(
        function,
        [(config, batch // ranks, *more)] * ranks,
        threads=max(1, config.threads // ranks),
        as_ranks=True,
        device=config.device,
    )


def _seconds_by_form(config: Settings, rows: int) -> dict[str, list[float]]:
    with harness.joined() as engine:
        image, report = embeddings(rows, config.dim, engine.rank, engine.device)

        def seconds(loss: Loss) -> float:
            # Gradients made anew: their allocation is part of a step.
            image.grad = report.grad = None
            wait_for_all()
            return harness.seconds_of(lambda: loss(image, report).backward())

        forms = loss_forms(config.chunk_size)
        measures = {form: partial(seconds, loss) for form, loss in forms.items()}
        return harness.take_turns(measures, turns=config.repeats)


def _peak_bytes(config: Settings, rows: int, form: str) -> int:
    """The peak of one form above its inputs."""
    with harness.joined() as engine:
        loss = loss_forms(config.chunk_size)[form]
        # The buffers of the libraries are not the loss's.
        loss(*embeddings(WARM_UP_BATCH, config.dim, engine.rank, engine.device)).backward()
        image, report = embeddings(rows, config.dim, engine.rank, engine.device)
        wait_for_all()
        return harness.peak_bytes_above_start(lambda: loss(image, report).backward())


def embeddings(rows: int, dim: int, rank: int, device: torch.device) -> list[Tensor]:
    """Images and reports, which want a gradient."""
    generator = torch.Generator().manual_seed(rank)
    return [
        torch.randn(rows, dim, generator=generator).to(device).requires_grad_() for _ in range(2)
    ]

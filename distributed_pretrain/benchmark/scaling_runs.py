"""Timed steps of a small LoVT in real processes: alone, side by side, and as ranks over gloo."""

from __future__ import annotations

import json
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Literal

import torch
from torch.multiprocessing import get_context
from torch.multiprocessing.spawn import start_processes

from data_shards.profiles import validate
from distributed_pretrain.batch import Batch, ReportTokens
from distributed_pretrain.benchmark.scaling_model import (
    FLOAT32_BYTES,
    STEP_NUMBERS,
    Collective,
    Exchange,
)
from distributed_pretrain.methods.lovt.method import Lovt, LovtConfig, build_lovt
from distributed_pretrain.ranks import gather_rows, sum_over_ranks, wait_for_all
from distributed_pretrain.training.engine.ddp import Engine
from distributed_pretrain.training.settings import TrainingConfig

Size = Literal["small", "tiny"]

VOCABULARY_SIZE = 1024
TOKENS, SENTENCES = 64, 4
IMAGE_SIZE_PX: dict[Size, int] = {"small": 128, "tiny": 32}
COLLECTIVE_BYTES = (2**12, 2**15, 2**18, 2**20, 2**22, 2**24)
COLLECTIVE_REPEATS = 7
LEARNING_RATE = 1e-4
_START_TIMEOUT_SECONDS = 300


@dataclass(frozen=True)
class RankJob:
    """What each process does: steps of each batch size in turn, then collectives if asked."""

    size: Size
    rows: tuple[int, ...]
    steps: int
    warmup_steps: int
    collectives: bool = False


@dataclass(frozen=True)
class RankTimes:
    """Median seconds of a step by batch size, and of collectives by kind and size in bytes."""

    step_seconds: dict[int, float]
    collective_seconds: dict[Collective, dict[int, float]]


def time_processes(job: RankJob, *, processes: int, as_ranks: bool = True) -> list[RankTimes]:
    """What each of `processes` one-threaded processes measured, all at the same time.

    `as_ranks` trains one model together over gloo; otherwise each trains its own and sends
    nothing. A failing process ends the others and raises its error here.
    """
    barrier = get_context("forkserver").Barrier(processes)
    with tempfile.TemporaryDirectory() as folder:
        ranks = processes if as_ranks else 1
        start_together(
            _run_process, (job, ranks, free_port(), barrier, Path(folder)), processes=processes
        )
        return [_read_times(Path(folder) / f"process{number}.json") for number in range(processes)]


def start_together(
    function: Callable[..., None], arguments: tuple[object, ...], *, processes: int
) -> None:
    """Run `function(number, *arguments)` in each process, and return when all have ended.

    The first error ends the others and is raised here. One server imports this module and forks
    the processes, since importing takes longer than a few steps.
    """
    get_context("forkserver").set_forkserver_preload([__name__])
    start_processes(function, arguments, nprocs=processes, start_method="forkserver")


def build_small_lovt(size: Size) -> Lovt:
    """LoVT of `configs/pretrain/lovt_small.yaml`'s sizes, or a tiny one, all in float32.

    The trunk's norm is local: in one process a synchronised one is another, fused kernel, and the
    comparison would be of kernels.
    """
    small = size == "small"
    values = {
        "image_encoder": {
            "backbone": "resnet18",
            "weights": None,
            "width": 0.5 if small else 0.125,
            "last_stride": 1,
            "norm": "local",
        },
        "report_encoder": {
            "name": "new",
            "hidden_size": 128 if small else 32,
            "layers": 2,
            "heads": 4,
            "intermediate_size": 256,
            "dropout": 0.0,
        },
        "embedding_dim": 128 if small else 16,
        "projection_hidden_dim": 256 if small else 32,
    }
    config = validate(LovtConfig, values, where="benchmark scaling")
    torch.manual_seed(0)
    return build_lovt(config, vocabulary_size=VOCABULARY_SIZE)


def exchange_of(method: Lovt) -> Exchange:
    """What a step of `method` sends: synchronised heads, and a trunk that is not."""
    config = method.config
    return Exchange(
        embedding_dim=config.embedding_dim,
        trained_parameters=sum(p.numel() for p in method.parameters() if p.requires_grad),
        head_norms=(config.projection_hidden_dim,) * 4,
    )


def random_batch(size: Size, rows: int, *, seed: int) -> Batch:
    """`rows` pairs of noise, every report with 64 tokens in four sentences."""
    generator = torch.Generator().manual_seed(seed)
    side = IMAGE_SIZE_PX[size]
    sentence_index = torch.arange(TOKENS) // (TOKENS // SENTENCES)
    sentence_index[[0, -1]] = -1
    return Batch(
        keys=tuple(map(str, range(rows))),
        images=torch.randn(rows, 1, side, side, generator=generator),
        report=ReportTokens(
            token_ids=torch.randint(1, VOCABULARY_SIZE, (rows, TOKENS), generator=generator),
            token_mask=torch.ones(rows, TOKENS, dtype=torch.bool),
            sentence_index=sentence_index.expand(rows, -1),
            sentence_mask=torch.ones(rows, SENTENCES, dtype=torch.bool),
            word_index=torch.where(sentence_index < 0, -1, torch.arange(TOKENS) - 1).expand(
                rows, -1
            ),
        ),
        sample_mask=torch.ones(rows, dtype=torch.bool),
    )


def training_step(engine: Engine, batch: Batch) -> None:
    """The trainer's step without its loader: forward, loss, backward, one gather of numbers."""
    engine.backward(engine.method.loss(engine.forward(batch))["total"])
    norm = engine.gradient_norm()
    gather_rows(torch.zeros(1, STEP_NUMBERS, dtype=torch.float64))
    engine.update(LEARNING_RATE, clip_norm=None, norm=norm)


def join_ranks(rank: int, ranks: int, port: int, size: Size) -> Engine:
    """The engine of this process, holding the method: one of `ranks` on this machine's CPU."""
    os.environ |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    if ranks > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(ranks),
            "LOCAL_WORLD_SIZE": str(ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    torch.set_num_threads(1)
    engine = Engine(TrainingConfig(precision="float32"))
    assert engine.world_size == ranks, "the environment names the ranks"
    method = build_small_lovt(size).train()
    engine.prepare(method, torch.optim.AdamW(method.parameters(), lr=LEARNING_RATE))
    return engine


def _run_process(
    number: int, job: RankJob, ranks: int, port: int, barrier: Barrier, folder: Path
) -> None:
    """Measure and leave the times in `folder`; `number` is the rank where there are ranks."""
    engine = join_ranks(number, ranks, port, job.size)
    try:
        barrier.wait(_START_TIMEOUT_SECONDS)
    except BrokenBarrierError as error:
        raise RuntimeError("the processes did not start together") from error
    step_seconds = {}
    for rows in job.rows:
        batch = random_batch(job.size, rows, seed=number)
        for _ in range(job.warmup_steps):
            training_step(engine, batch)
        step_seconds[rows] = _median_seconds(partial(training_step, engine, batch), job.steps)
    collective_seconds = _time_collectives() if job.collectives else {}
    times = RankTimes(step_seconds, collective_seconds)
    (folder / f"process{number}.json").write_text(json.dumps(asdict(times)))
    engine.close()


def _time_collectives() -> dict[Collective, dict[int, float]]:
    """Seconds by the size of the message, as `Message` counts it."""
    seconds: dict[Collective, dict[int, float]] = {
        "all_reduce": {},
        "all_gather": {},
        "reduce_scatter": {},
    }
    for size_bytes in COLLECTIVE_BYTES:
        tensor = torch.ones(size_bytes // FLOAT32_BYTES)
        seconds["all_reduce"][size_bytes] = _median_seconds(
            partial(sum_over_ranks, tensor), COLLECTIVE_REPEATS
        )
        gathered = gather_rows(torch.ones(1))
        own = tensor[: len(tensor) // len(gathered)].clone().requires_grad_()
        everything = gather_rows(own)
        seconds["all_gather"][size_bytes] = _median_seconds(
            partial(gather_rows, own), COLLECTIVE_REPEATS
        )
        seconds["reduce_scatter"][size_bytes] = _median_seconds(
            partial(torch.autograd.grad, everything, own, tensor, retain_graph=True),
            COLLECTIVE_REPEATS,
        )
    return seconds


def _median_seconds(action: Callable[[], object], repeats: int) -> float:
    """The median time of `action`, which every rank begins together."""
    times = []
    for _ in range(repeats):
        wait_for_all()
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _read_times(path: Path) -> RankTimes:
    values = json.loads(path.read_text())
    return RankTimes(
        {int(rows): seconds for rows, seconds in values["step_seconds"].items()},
        {
            kind: {int(size): seconds for size, seconds in by_size.items()}
            for kind, by_size in values["collective_seconds"].items()
        },
    )


def free_port() -> int:
    """A TCP port of this machine that nobody listens on, for the ranks to meet at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

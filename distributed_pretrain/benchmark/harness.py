"""What every benchmark stands on: turns and ratios, fresh processes, peak memory, its report.

Timings on a shared machine are noisy: what is compared takes turns in one run, and a ratio is one
of neighbours in time, so that a slow minute of the machine hits both.
"""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import socket
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch

from data_shards.errors import InputError
from data_shards.processes import ENDING_SIGNALS, start_server
from distributed_pretrain.ranks import is_communication_error
from distributed_pretrain.training.engine.ddp import Engine
from distributed_pretrain.training.settings import TrainingConfig

Device = Literal["cpu", "cuda"]
KeyT = TypeVar("KeyT")
ResultT = TypeVar("ResultT")

_PROCESS = Path("/proc/self")
# Written to clear_refs: the peak starts again from what is resident now (proc(5)).
_RESET_PEAK = "5"


def seconds_of(action: Callable[[], object]) -> float:
    """Seconds of `action` and of what it starts on the GPU, if this process uses one."""
    started = time.perf_counter()
    action()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def take_turns(
    measures: Mapping[KeyT, Callable[[], ResultT]], *, turns: int, warmup: int = 1
) -> dict[KeyT, list[ResultT]]:
    """What each of `measures` gave in every turn, one after the other; a warm-up is left out."""
    results: dict[KeyT, list[ResultT]] = {key: [] for key in measures}
    for _ in range(warmup + turns):
        for key, measure in measures.items():
            results[key].append(measure())
    return {key: each[warmup:] for key, each in results.items()}


class Ratios(list[float]):
    """Figures over those of their neighbours in time, turn by turn; the `median` counts."""

    def __init__(self, own: Sequence[float], others: Sequence[float]) -> None:
        super().__init__(each / other for each, other in zip(own, others, strict=True))
        self.median = statistics.median(self)

    def __format__(self, spec: str) -> str:
        return format(f"{self.median:6.3f} ({min(self):.3f} to {max(self):.3f})", spec)


def peak_bytes_above_start(action: Callable[[], object]) -> int:
    """Bytes in use at the worst moment of `action` beyond those in use before it.

    In a process that uses a GPU these are torch's allocations; else the resident memory of the
    process, which should be a fresh one: memory that was freed earlier is taken up unseen. Whatever
    `action` reads must be touched, and its libraries warmed up, beforehand. Raises InputError where
    there is neither a GPU nor Linux's /proc.
    """
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        action()
        return torch.cuda.max_memory_allocated() - before
    if not (_PROCESS / "clear_refs").exists():
        raise InputError("peak memory of a CPU process: /proc/self is missing: measure on Linux")
    (_PROCESS / "clear_refs").write_text(_RESET_PEAK)
    before = _status_bytes("VmRSS")
    action()
    return _status_bytes("VmHWM") - before


def _status_bytes(field: str) -> int:
    """A field of /proc/self/status, which counts in KiB."""
    (kibibytes,) = re.findall(rf"{field}:\s+(\d+)", (_PROCESS / "status").read_text())
    return int(kibibytes) * 1024


def in_fresh_processes(
    function: Callable[..., ResultT],
    arguments: Sequence[tuple[Any, ...]],
    *,
    threads: int = 1,
    as_ranks: bool = False,
    device: Device = "cpu",
) -> list[ResultT]:
    """The results of `function`, called side by side in a new process for each of `arguments`.

    Each has `threads` threads. `as_ranks` they find each other in `joined`, in this order. The
    function is a module's own, as it is pickled; its error is raised here. Raises InputError if a
    process dies, which mostly is the system's answer to a lack of memory.
    """
    count, on_cpu = len(arguments), str(device == "cpu").lower()
    everywhere = {"ACCELERATE_USE_CPU": on_cpu, "OMP_NUM_THREADS": str(threads)}
    variables = [everywhere] * count
    if as_ranks and count > 1:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        everywhere |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        everywhere |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(count))
        ranks = (dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank)) for rank in range(count))
        variables = [everywhere | own for own in ranks]
    # A server imports torch and the like once, and the processes start in milliseconds.
    processes = start_server(preload=[__name__, function.__module__])
    with ProcessPoolExecutor(count, processes) as pool:
        futures = [
            pool.submit(_call, function, each, threads, own)
            for each, own in zip(arguments, variables, strict=True)
        ]
        errors = [error for each in futures if (error := each.exception()) is not None]
    if not errors:
        return [future.result() for future in futures]
    # A rank fails too whose neighbour has failed.
    cause = min(errors, key=is_communication_error)
    if isinstance(cause, BrokenProcessPool):
        raise InputError(
            "a process of the benchmark was killed, probably for want of memory: "
            "choose smaller sizes"
        ) from cause
    raise cause


def _call(
    function: Callable[..., ResultT],
    arguments: tuple[Any, ...],
    threads: int,
    variables: dict[str, str],
) -> ResultT:
    # The server ignores them, but there is nothing to keep here: Ctrl-C ends all at once.
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    os.environ |= variables
    torch.set_num_threads(threads)
    return function(*arguments)


def joined() -> closing[Engine]:
    """The engine of this process, one of the ranks that it was started as.

    It is closed at the end of the context: a rank that fails must not leave the others waiting.
    """
    return closing(Engine(TrainingConfig(precision="float32")))


class Table:
    """Columns by title with the format of their cells; `rows` keeps these by title."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self.rows: list[dict[str, Any]] = []
        self._columns = columns
        widths = (each.partition(".")[0] for each in columns.values())
        print("  " + " ".join(map(format, columns, widths)))

    def row(self, *cells: Any) -> None:
        """Add one, which is printed as soon as it is known."""
        self.rows.append(dict(zip(self._columns, cells, strict=True)))
        print("  " + " ".join(map(format, cells, self._columns.values())), flush=True)


@dataclass(frozen=True)
class Target:
    """A figure beside what is asked of it: at most `limit`, or `at_least` that."""

    name: str
    value: float
    limit: float
    at_least: bool = False

    @property
    def is_reached(self) -> bool:
        """Whether the figure is what is asked of it."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def bound(self) -> str:
        """What is asked, in words."""
        return f"at {'least' if self.at_least else 'most'} {self.limit:.3g}"

    def __str__(self) -> str:
        verdict = "reached" if self.is_reached else "MISSED"
        return f"{self.name}: {self.value:.3g}, {self.bound}: {verdict}"


def print_figures(figures: Mapping[str, float]) -> None:
    """Print each on a line."""
    for name, value in figures.items():
        print(f"  {name:36s} {value:10.4f}")


def conclude(targets: Sequence[Target], figures: Mapping[str, Any]) -> None:
    """Print what was reached, and then everything as one line of JSON."""
    for target in targets:
        print(f"  {target}")
    print(json.dumps({**figures, "targets": targets}, default=vars))

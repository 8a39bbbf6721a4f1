"""A part of the benchmark: a process with a limit, whose figures come as it has them."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import TypeVar

import torch

from data_shards.errors import InputError
from data_shards.processes import ENDING_SIGNALS
from distributed_pretrain.benchmark import harness

Report = Callable[..., None]
KeyT = TypeVar("KeyT")
# Of torch's switches: whose it is, its name, its value.
Flag = tuple[object, str, bool]

# What the parts say beside their figures.
LOG_NAME = "gpu.log"
_SECONDS_TO_END = 5.0


@dataclass(frozen=True)
class Bench:
    """What every part is told: `folder` has the shards, `output` is where traces and logs go.

    `seconds` is what the part may take; `tiny` makes everything so small that a CPU does it.
    """

    device: harness.Device
    tiny: bool
    profiles: Path
    folder: Path
    output: Path
    seconds: float = math.inf

    @property
    def torch_device(self) -> torch.device:
        """The device that all is measured on."""
        return torch.device(self.device)

    def share(self, of_limit: float) -> float:
        """Seconds for a loop that may take that share of the limit; nearly none when tiny."""
        return 0.0 if self.tiny else of_limit * self.seconds


# A module's own function: it is pickled. It calls `report(name=figure, ...)` whenever it has one.
Measure = Callable[[Bench, Report], None]


@dataclass(frozen=True)
class Part:
    """What is measured, in one line, and the most seconds that it may take."""

    title: str
    seconds: float
    measure: Measure


@dataclass
class Result:
    """Figures by name, in the order of their coming; why there are no more of them; the time."""

    figures: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    seconds: float = 0.0


def warm_up(processes: ForkServerContext) -> None:
    """Return when the server has imported all and forks: that is no part's time."""
    process = processes.Process(target=_nothing)
    process.start()
    process.join()


def _nothing() -> None: ...


def run_part(part: Part, bench: Bench, processes: ForkServerContext, *, most: float) -> Result:
    """What the part reports within its own limit and `most` seconds.

    Whatever it does in the end (an error, the memory, a hang), this returns.
    """
    limit = min(part.seconds, most)
    result, started = Result(), time.monotonic()
    ours, theirs = processes.Pipe(duplex=False)
    own = Bench(**vars(bench) | {"seconds": limit})
    process = processes.Process(target=_call, args=(part.measure, own, theirs))
    process.start()
    theirs.close()
    try:
        result.error = _listen(ours, result.figures, deadline=started + limit)
    finally:
        process.join(_SECONDS_TO_END if result.error is None else 0)
        process.kill()
        process.join()
        ours.close()
    result.seconds = time.monotonic() - started
    return result


def _listen(ours: Connection, figures: dict[str, float], *, deadline: float) -> str | None:
    """Take figures until the part says that it is done; else why it did not come so far."""
    while ours.poll(max(0.0, deadline - time.monotonic())):
        try:
            told = ours.recv()
        except EOFError:
            return "its process was killed, probably for want of memory"
        if not isinstance(told, dict):
            return None if told is None else str(told)
        figures.update(told)
    return "stopped at its time limit"


def _call(measure: Measure, bench: Bench, theirs: Connection) -> None:
    # The server ignores them, but there is nothing to keep here.
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    log = os.open(bench.output / LOG_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.environ["ACCELERATE_USE_CPU"] = str(bench.device == "cpu").lower()
    if bench.tiny:
        torch.set_num_threads(1)
    try:
        measure(bench, lambda **figures: theirs.send(figures))
    except InputError as error:
        theirs.send(str(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, the other parts go on
        first = str(error).strip().splitlines() or [""]
        theirs.send(f"{type(error).__name__}: {first[0]}")
    else:
        theirs.send(None)


def turns_for(
    measures: Mapping[KeyT, Callable[[], float]], seconds: float, *, least: int = 2
) -> dict[KeyT, list[float]]:
    """What each gave in every turn, as many turns as `seconds` allow, after one that warms up."""
    deadline = time.monotonic() + seconds
    results: dict[KeyT, list[float]] = {key: [] for key in measures}
    turn = -1
    while turn < least or time.monotonic() < deadline:
        for key, measure in measures.items():
            value = measure()
            if turn >= 0:
                results[key].append(value)
        turn += 1
    return results


def rate_of(action: Callable[[], object], amount: float, seconds: float) -> float:
    """`amount` by the median seconds of `action`, tried for so long."""
    found = turns_for({0: lambda: harness.seconds_of(action)}, seconds)
    return amount / statistics.median(found[0])


@contextlib.contextmanager
def flags(*changes: Flag) -> Iterator[None]:
    """Within it some switches of torch are set."""
    before = [getattr(of, name) for of, name, _ in changes]
    try:
        for of, name, value in changes:
            setattr(of, name, value)
        yield
    finally:
        for (of, name, _), value in zip(changes, before, strict=True):
            setattr(of, name, value)


def medians(turns: Mapping[KeyT, Sequence[float]]) -> dict[KeyT, float]:
    """The median of each."""
    return {key: statistics.median(each) for key, each in turns.items()}

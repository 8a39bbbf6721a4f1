"""Many runs on this machine: several at a time, told to end by signals, gone on with when repeated.

Comparisons of methods and the launcher's sweeps without a cluster both come here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Protocol

from data_shards.command_line import DONE, GOES_ON
from data_shards.errors import InputError
from data_shards.processes import InterruptionFlag
from distributed_pretrain.run_folder.folder import RunFolder

CHECKOUT = Path(__file__).parents[3]
SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_BETWEEN_LINES = 20.0
# What training is of a run's time; the rest is its evaluation.
TRAINING_SHARE = 0.85


class Run(Protocol):
    """One of many, called `name` in lines about it; its run `folder` tells how far it is."""

    name: str
    folder: Path

    def start(self) -> None:
        """Start it, once."""

    def status(self) -> int | None:
        """The exit status it left with; None while it goes on."""

    def end(self) -> None:
        """Tell it to save and end."""

    def last_word(self) -> str:
        """What it said last, for one that failed."""


@dataclass(frozen=True)
class Outcome:
    """How the runs ended: `failed` tells of each that did what it said last."""

    failed: tuple[str, ...] = ()
    interrupted: bool = False


def run_all(runs: Sequence[Run], *, at_once: int) -> Outcome:
    """Start all, `at_once` at a time, until they have ended; lines on stderr tell how far it is.

    One that fails does not hold up the others. At SIGINT, SIGTERM or SIGUSR2, or when a run was
    told to end by others, those that go on are told to, and no more are started.
    """
    waiting, running = deque(runs), list[Run]()
    failed: list[str] = []
    saved = False
    progress = _Progress(total=len(runs))
    with InterruptionFlag() as told, ending(running):
        while (waiting or running) and not told.raised:
            while waiting and len(running) < at_once and not told.raised:
                run = waiting.popleft()
                run.start()
                running.append(run)
                progress.started(run)
            time.sleep(SECONDS_BETWEEN_LOOKS)
            for run in list(running):
                status = run.status()
                if status is None:
                    continue
                running.remove(run)
                if status == GOES_ON:
                    told.raised = saved = True
                elif status != DONE:
                    failed.append(f"{run.name}: {run.last_word()}")
                progress.ended(run, status)
            progress.look(running)
        if running:
            _say(f"interrupted: {len(running)} runs save and end")
        return Outcome(tuple(failed), interrupted=saved or bool(waiting or running))


@contextmanager
def ending(running: Sequence[Run]) -> Iterator[None]:
    """Whatever ends the block, tell those that still run to end, and wait until they have."""
    try:
        yield
    finally:
        for run in running:
            run.end()
        while any(run.status() is None for run in running):
            time.sleep(SECONDS_BETWEEN_LOOKS)


class ModuleRun:
    """`python -m WORDS` in a process of its own; what it says goes to `run.log` in its folder."""

    def __init__(
        self, name: str, folder: Path, words: Sequence[str], *, threads: int | None
    ) -> None:
        self.name, self.folder = name, folder
        self.log = folder / "run.log"
        self._words = words
        # This process may have been started from elsewhere than the checkout.
        self._environment = os.environ | {"PYTHONPATH": str(CHECKOUT)}
        if threads is not None:
            self._environment["OMP_NUM_THREADS"] = str(threads)

    def start(self) -> None:
        """Start the process; the folder is made."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._start(log)

    def _start(self, log: IO[bytes] | None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", *self._words],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )

    def status(self) -> int | None:
        """The exit status; None while it goes on."""
        return self._process.poll()

    def end(self) -> None:
        """SIGTERM."""
        self._process.terminate()

    def last_word(self) -> str:
        """The last line of the log."""
        lines = self.log.read_text(errors="replace").splitlines()
        return next((line for line in reversed(lines) if line.strip()), "no word")


class _Builder(ModuleRun):
    """The builder, which says what it says where this process does."""

    def __init__(self, profile: Path, output: Path) -> None:
        words = ("data_shards", "build", str(profile), f"output={output}")
        super().__init__("shards", output, words, threads=None)

    def start(self) -> None:
        """Start it; the folder is its own matter."""
        self._start(None)


def build_shards(profile: Path, output: Path) -> None:
    """Run the builder, which skips what is done, and ends with this process.

    Raises InputError if it fails, KeyboardInterrupt where this process was told to end.
    """
    with InterruptionFlag() as told:
        builder = _Builder(profile, output)
        builder.start()
        with ending([builder]):
            while builder.status() is None and not told.raised:
                time.sleep(SECONDS_BETWEEN_LOOKS)
    if told.raised:
        raise KeyboardInterrupt
    if builder.status():
        raise InputError("building the shards failed, see above: mend it and run this again")


class _Progress:
    """Lines about runs that start and end, and from time to time about those under way."""

    def __init__(self, *, total: int) -> None:
        self._total, self._ended = total, 0
        self._first = self._last_line = time.monotonic()
        self._starts: dict[str, float] = {}

    def started(self, run: Run) -> None:
        self._starts[run.name] = time.monotonic()
        _say(f"{run.name}: {len(self._starts)} of {self._total} started")

    def ended(self, run: Run, status: int) -> None:
        self._ended += 1
        seconds = time.monotonic() - self._starts[run.name]
        what = f"done in {seconds:.0f} s" if status == DONE else f"ended with status {status}"
        _say(f"{run.name}: {what}; {self._ended} of {self._total} runs")

    def look(self, running: Sequence[Run]) -> None:
        now = time.monotonic()
        if not running or now - self._last_line < SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        done, steps = float(self._ended), []
        for run in running:
            found = None
            with suppress(InputError, OSError):  # it is the run's own to say
                found = RunFolder(run.folder).progress()
            steps.append(f"{run.name} step {found.step if found else 0}")
            if found and found.total_steps:
                done += TRAINING_SHARE * min(1.0, found.step / found.total_steps)
        # The first steps of the first runs tell nothing yet.
        if done >= 0.25:
            left = (now - self._first) / done * (self._total - done)
            steps.append(f"{timedelta(seconds=round(left))} left")
        _say(f"{self._ended} of {self._total} runs; {', '.join(steps)}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

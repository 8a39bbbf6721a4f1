"""The runs of a comparison, each in a process of its own, several at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from data_shards.files.atomic import write_text_atomically
from distributed_pretrain.experiments.settings import RunJob
from distributed_pretrain.experiments.shards_command import CHECKOUT
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.progress import TAIL_BYTES
from distributed_pretrain.training.faults.interruption import (
    GOES_ON,
    InterruptionFlag,
)

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_BETWEEN_LINES = 20.0
# What training is of a run's time; the rest is its evaluation.
TRAINING_SHARE = 0.85


@dataclass(frozen=True)
class Outcome:
    """How the runs ended: `failed` tells of each that did what its log says last."""

    failed: tuple[str, ...]
    interrupted: bool


@dataclass(frozen=True)
class _Running:
    job: RunJob
    process: subprocess.Popen[bytes]
    started: float

    @property
    def name(self) -> str:
        return f"{self.job.method} seed {self.job.seed}"

    @property
    def share_done(self) -> float:
        steps = self.job.pretrain.training.max_steps
        return TRAINING_SHARE * min(1.0, _last_step(self.job) / steps) if steps else 0.0


def run_jobs(jobs: Sequence[RunJob], *, processes: int, threads: int) -> Outcome:
    """Run all, `processes` at a time with `threads` each; lines on stderr tell how far it is.

    A run that fails does not hold up the others. SIGINT, SIGTERM and SIGUSR2 are passed on: runs
    save and end, and the same jobs go on when started again.
    """
    waiting, running = deque(jobs), list[_Running]()
    failed: list[str] = []
    progress = _Progress(total=len(jobs))
    with InterruptionFlag() as interruption:
        while waiting or running:
            while waiting and len(running) < processes and not interruption.raised:
                running.append(_start(waiting.popleft(), threads))
            if interruption.raised:
                _end(running)
                return Outcome(tuple(failed), interrupted=True)
            time.sleep(SECONDS_BETWEEN_LOOKS)
            for each in [each for each in running if each.process.poll() is not None]:
                running.remove(each)
                status = each.process.returncode
                if status == GOES_ON:
                    interruption.raised = True
                elif status != 0:
                    failed.append(f"{each.name}: {_last_line(each.job)}")
                progress.ended(each, status)
            progress.look(running)
    return Outcome(tuple(failed), interrupted=False)


class _Progress:
    """Lines about runs that ended, and from time to time about those under way."""

    def __init__(self, *, total: int) -> None:
        self._total = total
        self._ended = 0
        self._started = self._last_line = time.monotonic()

    def ended(self, run: _Running, status: int) -> None:
        self._ended += 1
        seconds = time.monotonic() - run.started
        what = f"done in {seconds:.0f} s" if status == 0 else f"ended with status {status}"
        _say(f"{run.name}: {what}; {self._ended} of {self._total} runs")

    def look(self, running: Sequence[_Running]) -> None:
        now = time.monotonic()
        if not running or now - self._last_line < SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        done = self._ended + sum(each.share_done for each in running)
        steps = ", ".join(f"{each.name} step {_last_step(each.job)}" for each in running)
        # The first steps of the first runs tell nothing yet.
        if done >= 0.25:
            left = (now - self._started) / done * (self._total - done)
            steps += f"; {timedelta(seconds=round(left))} left"
        _say(f"{self._ended} of {self._total} runs; {steps}")


def _start(job: RunJob, threads: int) -> _Running:
    job.folder.mkdir(parents=True, exist_ok=True)
    path = job.folder / "job.json"
    write_text_atomically(path, job.model_dump_json(indent=1) + "\n")
    with (job.folder / "run.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "distributed_pretrain.experiments.one_run", str(path)],
            env=os.environ | {"PYTHONPATH": str(CHECKOUT), "OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    return _Running(job, process, time.monotonic())


def _end(running: Sequence[_Running]) -> None:
    if running:
        _say(f"interrupted: {len(running)} runs save and end")
    for each in running:
        each.process.terminate()
    for each in running:
        each.process.wait()


def _last_step(job: RunJob) -> int:
    """The run's newest step, 0 before the first."""
    lines = RunFolder(job.folder).read_metrics(last_bytes=TAIL_BYTES)
    return int(lines[-1]["step"]) if lines else 0


def _last_line(job: RunJob) -> str:
    lines = (job.folder / "run.log").read_text(errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.strip()), "no word")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

"""`logs`: what the ranks of a job say, as they say it."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from data_shards.records.errors import InputError
from launch.records import JobFolder, JobRecord, newest_job
from launch.states import LIVE, states_of

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_BETWEEN_STATES = 10.0


def show_logs(results: Path, *, rank: int | None, follow: bool) -> None:
    """Print the log of one rank (None: of all, each line with its rank), then what comes.

    Following ends with the job; a requeued job goes on in the same files. Raises InputError for a
    folder without a job, or a rank that it has not.
    """
    job = newest_job(results)
    if job is None:
        raise InputError(f"{results}: no job was submitted about it")
    record = job.record()
    if rank is not None and rank >= record.ranks:
        raise InputError(f"--rank {rank}: the job has ranks 0 to {record.ranks - 1}")
    ranks = range(record.ranks) if rank is None else [rank]
    prefixed = len(ranks) > 1
    logs = [_Log(log_of(record, each), f"[{each}] " if prefixed else "") for each in ranks]
    if not follow and not any(log.path.exists() for log in logs):
        raise InputError(f"{logs[0].path}: not there yet: the job is {states_of([job])[0].state}")
    has_ended = _ended(job)
    while True:
        last = has_ended()
        for log in logs:
            log.print_new()
        if last or not follow:
            return
        time.sleep(SECONDS_BETWEEN_LOOKS)


def log_of(record: JobRecord, rank: int) -> Path:
    """Where submitit puts what a rank says."""
    return record.submission / f"{record.job_id}_{rank}_log.out"


class _Log:
    def __init__(self, path: Path, prefix: str) -> None:
        self.path, self._prefix = path, prefix
        self._position = 0
        self._at_line_start = True

    def print_new(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._position)
            new = file.read()
        self._position += len(new)
        if not new:
            return
        text = new.decode(errors="replace")
        if self._prefix:
            start = self._prefix if self._at_line_start else ""
            self._at_line_start = text.endswith("\n")
            text = start + re.sub(r"\n(?!\Z)", "\n" + self._prefix, text)
        sys.stdout.write(text)
        sys.stdout.flush()


def _ended(job: JobFolder) -> Callable[[], bool]:
    """Whether the job has ended; asks the scheduler only from time to time."""
    asked: list[float] = []

    def ended() -> bool:
        now = time.monotonic()
        if asked and now - asked[-1] < SECONDS_BETWEEN_STATES and not _said_last(job):
            return False
        asked[:] = [now]
        return states_of([job])[0].state not in LIVE

    return ended


def _said_last(job: JobFolder) -> bool:
    events = job.events()
    return bool(events) and events[-1].event in ("finished", "failed", "cancelled")

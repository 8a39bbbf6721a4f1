"""`logs`: what the ranks of a job say, as they say it."""

from __future__ import annotations

import codecs
import math
import re
import sys
import time
from pathlib import Path

from data_shards.errors import InputError
from launch.records import Job, JobRecord, newest_job
from launch.slurm import EXECUTORS
from launch.states import read_jobs

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_BETWEEN_STATES = 10.0


def show_logs(results: Path, *, rank: int | None, follow: bool) -> Job | None:
    """Print the log of one rank (None: of all, each line with its rank), then what comes.

    Following ends with the job, whose last state is returned (None without `follow`); a requeued
    job goes on in the same files. Raises InputError for a folder without a job, a rank that it
    has not, or a job without logs.
    """
    job = newest_job(results)
    if job is None:
        raise InputError(f"{results}: no job was submitted about it")
    record = job.record()
    if rank is not None and rank >= record.ranks:
        there_are = "rank 0 alone" if record.ranks == 1 else f"ranks 0 to {record.ranks - 1}"
        raise InputError(f"--rank {rank}: the job has {there_are}")
    if not EXECUTORS[record.executor].in_background:
        raise InputError(
            f"{results}: executor={record.executor} keeps no log: it wrote to its terminal"
        )
    ranks = range(record.ranks) if rank is None else [rank]
    prefix = "[{}] " if len(ranks) > 1 else ""
    logs = [_Log(log_of(record, each), prefix.format(each)) for each in ranks]
    if not any(log.path.exists() for log in logs):
        [now] = read_jobs([job])
        if not follow:
            raise InputError(f"{logs[0].path}: not there yet: the job is {now.state}")
        print(f"{now.state} {now.line}".rstrip(), file=sys.stderr, flush=True)
    ended, asked = None, -math.inf
    while True:
        # The scheduler is asked only from time to time.
        said_last = {each.event for each in job.events()[-1:]} & {"finished", "failed"}
        if follow and (said_last or time.monotonic() - asked >= SECONDS_BETWEEN_STATES):
            asked = time.monotonic()
            [now] = read_jobs([job])
            ended = None if now.is_live else now
        for log in logs:
            log.print_new()
        if ended is not None or not follow:
            return ended
        time.sleep(SECONDS_BETWEEN_LOOKS)


def log_of(record: JobRecord, rank: int) -> Path:
    """Where submitit puts what a rank says."""
    return record.submission / f"{record.job_id}_{rank}_log.out"


class _Log:
    def __init__(self, path: Path, prefix: str) -> None:
        self.path, self._prefix = path, prefix
        self._position = 0
        self._at_line_start = True
        # A read may end within a letter.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def print_new(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._position)
            new = file.read()
        self._position += len(new)
        if not (text := self._decoder.decode(new)):
            return
        start = self._prefix if self._at_line_start else ""
        self._at_line_start = text.endswith("\n")
        print(start + re.sub(r"\n(?!\Z)", "\n" + self._prefix, text), end="", flush=True)

"""How jobs are, by the word of who runs them or of their ranks, and what these say (`logs`)."""

from __future__ import annotations

import codecs
import math
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import cast

from data_shards.errors import InputError
from distributed_pretrain.experiments.tables import text_table
from distributed_pretrain.run_folder.folder import RunFolder, RunProgress
from launch.records import (
    JOBS,
    UNREADABLE,
    Job,
    JobFolder,
    JobRecord,
    State,
    newest_job,
    starts_of,
)
from launch.slurm import EXECUTORS

SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_BETWEEN_STATES = 10.0
_HEADER = ("folder", "state", "step", "pairs/s", "loss", "left", "restarts", "job", "node")


def read_jobs(folders: Sequence[JobFolder], *, must_know: bool = False) -> list[Job]:
    """Jobs that have a record as they are now, with one question to a scheduler for all of them.

    When Slurm does not answer, what the ranks wrote down has to do, and what cannot be read is
    unknown; with `must_know`, InputError.
    """
    seen: dict[Path, Job] = {}
    every: list[Job] = []
    for folder in folders:
        try:
            every.append(Job(folder, folder.record(), folder.events()))
        except InputError as error:
            if must_know:
                raise
            seen[folder.path] = Job(folder, UNREADABLE, (), line=str(error))
    for name, executor in EXECUTORS.items():
        of_it = [job for job in every if job.record.executor == name]
        told = executor.look(of_it, must_know=must_know)
        seen |= {job.folder.path: _with_last_word(job) for job in told}
    return [seen[folder.path] for folder in folders]


def jobs_within(folders: Sequence[Path]) -> list[JobFolder]:
    """The newest job of each folder of results at or below `folders`, in the order of names.

    Raises InputError for a folder without any job.
    """
    found: list[JobFolder] = []
    for folder in folders:
        of_it = [job for results in _result_folders(folder) if (job := newest_job(results))]
        if not of_it:
            raise InputError(
                f"{folder}: no job was submitted about it: `python -m launch submit CLUSTER.yaml "
                "-- ...` does that"
            )
        found += of_it
    return found


def status(folders: Sequence[Path]) -> str:
    """A table of the newest job of each folder, and of those within it (a sweep, or runs/)."""
    jobs = read_jobs(jobs_within(folders))
    progress = [_progress(job) for job in jobs]
    table = [_HEADER, *map(_row, jobs, [found for found, _ in progress])]
    header, *rows = text_table(table).split("\n")
    lines = [header]
    for row, job, (_, trouble) in zip(rows, jobs, progress, strict=True):
        lines += [row, *(f"    {line}" for line in (job.line, trouble) if line)]
    return "\n".join(lines)


def _with_last_word(job: Job) -> Job:
    """A job of which those who run it have told, with what its ranks wrote down."""
    said, starts = job.last_word, starts_of(job.events)
    why = f"rank {said.rank}: {said.line}" if said is not None and said.event == "failed" else ""
    if job.state == "running" and said is not None:
        # Whoever started it again while its ranks end would write into the same folder.
        return replace(job, line=f"it ends: {said.event} {why}".rstrip())
    if job.is_live:
        return job
    host = starts[-1].host if starts else ""
    if said is not None:
        return replace(job, state=cast(State, said.event), nodes=host, line=why)
    if job.state == "failed" and job.events and job.events[-1].event == "requeued":
        job = replace(job, line=f"{job.line}: it saved, but was not requeued; submit it again")
    return replace(job, nodes=job.nodes or host)


def _result_folders(folder: Path) -> Iterator[Path]:
    """Folders that have a `jobs` folder; what lies in a run's other folders is not looked at."""
    for path, names, _ in os.walk(folder, onerror=_say_hidden):
        if JOBS in names:
            yield Path(path)
        run = RunFolder(Path(path))
        large = {each.name for each in (run.checkpoints, run.tensorboard, run.tokenizer)}
        names[:] = sorted(set(names) - large - {JOBS})


def _say_hidden(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        print(f"{error.filename}: not looked into: {error.strerror}", file=sys.stderr)


def _progress(job: Job) -> tuple[RunProgress | None, str]:
    """How far its run is, and why that is not known where its files cannot be read."""
    try:
        return RunFolder(job.folder.results).progress(), ""
    except (InputError, OSError) as error:
        return None, str(error)


def _row(job: Job, progress: RunProgress | None) -> tuple[str, ...]:
    """Folder, state, step, pairs a second, loss, time left, restarts, number and nodes."""
    results, here = job.folder.results, Path.cwd()
    shown = results.relative_to(here) if results.is_relative_to(here) else results
    step = rate = loss = left = "-"
    if progress is not None:
        step = f"{progress.step}/{progress.total_steps or '?'}"
        loss = loss if progress.loss is None else f"{progress.loss:.4f}"
        # Until the new job has made a step, the rate is that of the one before. Both times are the
        # file server's: the clocks of hosts differ.
        is_new = progress.written > job.folder.submitted
        if is_new and progress.pairs_per_second is not None:
            rate = f"{progress.pairs_per_second:,.0f}"
        if is_new and progress.seconds_left is not None and job.is_live:
            left = str(timedelta(seconds=round(progress.seconds_left)))
    ending = (str(job.restarts), job.record.job_id, job.nodes or "-")
    return (str(shown), job.state, step, rate, loss, left, *ending)


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

"""How jobs are: the word of whoever runs them, and where there is none, what the ranks wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from data_shards.errors import InputError
from distributed_pretrain.experiments.tables import text_table
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.progress import RunProgress, read_progress
from launch.records import (
    JOBS,
    LIVE,
    Answer,
    Event,
    EventName,
    JobFolder,
    JobRecord,
    State,
    Written,
    newest_job,
    starts_of,
)
from launch.slurm import EXECUTORS

_LAST_WORDS: dict[EventName, State] = {
    "finished": "finished",
    "failed": "failed",
    "cancelled": "cancelled",
}
_HEADER = ("folder", "state", "step", "pairs/s", "loss", "left", "restarts", "job", "node")


@dataclass(frozen=True)
class Job:
    """One job now. `line` is the last error, or why it waits; `restarts` were no submissions."""

    written: Written
    state: State
    nodes: str
    restarts: int
    line: str
    # Whether only another machine can tell.
    may_live: bool = False

    @property
    def record(self) -> JobRecord:
        """What was submitted."""
        return self.written.record

    @property
    def is_live(self) -> bool:
        """Whether it waits or runs."""
        return self.state in LIVE


def read_jobs(folders: Sequence[JobFolder], *, must_know: bool = False) -> list[Job]:
    """Jobs that have a record as they are now, with one question to a scheduler for all of them.

    When Slurm does not answer, what the ranks wrote down has to do; with `must_know`, InputError.
    """
    every = [folder.read() for folder in folders]
    answers: dict[Path, Answer] = {}
    for name, executor in EXECUTORS.items():
        of_it = [each for each in every if each.record.executor == name]
        for each, answer in zip(of_it, executor.answers(of_it, must_know=must_know), strict=True):
            answers[each.folder.path] = answer
    return [_job(each, answers[each.folder.path]) for each in every]


def jobs_within(folders: Sequence[Path], *, must_know: bool = False) -> list[Job]:
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
    return read_jobs(found, must_know=must_know)


def status(folders: Sequence[Path]) -> str:
    """A table of the newest job of each folder, and of those within it (a sweep, or runs/).

    Raises InputError for a folder without any job.
    """
    jobs = jobs_within(folders)
    header, *rows = text_table([_HEADER, *map(_row, jobs)]).split("\n")
    lines = [header]
    for row, job in zip(rows, jobs, strict=True):
        lines += [row, f"    {job.line}"] if job.line else [row]
    return "\n".join(lines)


def _job(written: Written, answer: Answer) -> Job:
    starts = starts_of(written.events)
    restarts = max(0, len(starts) - 1)
    host = starts[-1].host if starts else ""
    said = written.last_word
    if answer.state == "running" and said is not None:
        # Whoever started it again while its ranks end would write into the same folder.
        ending = f"it ends: {said.event} {_line_of(said)}".rstrip()
        return Job(written, "running", answer.nodes, restarts, ending)
    if answer.state in LIVE:
        return Job(written, answer.state, answer.nodes, restarts, answer.line)
    if said is not None:
        return Job(written, _LAST_WORDS[said.event], host, restarts, _line_of(said))
    line = answer.line
    if answer.state == "failed" and written.events and written.events[-1].event == "requeued":
        line += ": it saved, but was not requeued; submit it again"
    nodes = answer.nodes or host
    return Job(written, answer.state, nodes, restarts, line, answer.may_live)


def _line_of(event: Event) -> str:
    return f"rank {event.rank}: {event.line}" if event.event == "failed" else ""


def _result_folders(folder: Path) -> Iterator[Path]:
    """Folders that have a `jobs` folder; what lies in a run's other folders is not looked at."""
    for path, names, _ in os.walk(folder):
        if JOBS in names:
            yield Path(path)
        run = RunFolder(Path(path))
        large = {each.name for each in (run.checkpoints, run.tensorboard, run.tokenizer)}
        names[:] = sorted(set(names) - large - {JOBS})


def _row(job: Job) -> tuple[str, ...]:
    results, here = job.written.folder.results, Path.cwd()
    shown = results.relative_to(here) if results.is_relative_to(here) else results
    progress = read_progress(RunFolder(results))
    figures = _figures(job, progress) if progress is not None else ("-",) * 4
    ending = (str(job.restarts), job.record.job_id, job.nodes or "-")
    return (str(shown), job.state, *figures, *ending)


def _figures(job: Job, progress: RunProgress) -> tuple[str, ...]:
    """Step, pairs a second, loss and time left."""
    rate = left = "-"
    # Until the new job has made a step, the rate is that of the one before.
    of_this_job = progress.written > datetime.fromisoformat(job.record.submitted).timestamp()
    if progress.pairs_per_second is not None and of_this_job:
        rate = f"{progress.pairs_per_second:,.0f}"
    if progress.seconds_left is not None and of_this_job and job.is_live:
        left = str(timedelta(seconds=round(progress.seconds_left)))
    loss = "-" if progress.loss is None else f"{progress.loss:.4f}"
    return f"{progress.step}/{progress.total_steps or '?'}", rate, loss, left

"""`status`: how jobs are, from their folders and what the scheduler says of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from data_shards.errors import InputError
from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.progress import read_progress
from launch.records import JOBS, JobFolder, newest_job
from launch.states import LIVE, JobState, states_of

_HEADER = ("folder", "state", "step", "pairs/s", "loss", "left", "restarts", "job", "node")


def status(folders: Sequence[Path]) -> str:
    """A table of the newest job of each folder, and of those within it (a sweep, or runs/).

    Raises InputError for a folder without any job.
    """
    jobs = jobs_within(folders)
    rows: list[tuple[tuple[str, ...], str]] = [(_HEADER, "")]
    rows += [_row(job, state) for job, state in zip(jobs, states_of(jobs), strict=True)]
    widths = [max(map(len, column)) for column in zip(*(cells for cells, _ in rows), strict=True)]
    lines = []
    for cells, line in rows:
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        lines.append("  ".join(padded).rstrip())
        if line:
            lines.append(f"    {line}")
    return "\n".join(lines)


def jobs_within(folders: Sequence[Path]) -> list[JobFolder]:
    """The newest job of each folder of results at or below `folders`, in the order of names."""
    jobs = []
    for folder in folders:
        found = [job for results in _result_folders(folder) if (job := newest_job(results))]
        if not found:
            raise InputError(
                f"{folder}: no job was submitted about it: `python -m launch submit CLUSTER.yaml "
                "-- ...` does that"
            )
        jobs += found
    return jobs


def _result_folders(folder: Path) -> Iterator[Path]:
    """Folders that have a `jobs` folder; what lies in a run's other folders is not looked at."""
    for path, names, _ in os.walk(folder):
        if JOBS in names:
            yield Path(path)
        names[:] = sorted(
            each for each in names if each not in (JOBS, "checkpoints", "tensorboard", "tokenizer")
        )


def _row(job: JobFolder, state: JobState) -> tuple[tuple[str, ...], str]:
    record = job.record()
    progress = read_progress(RunFolder(job.results))
    step = rate = loss = left = "-"
    if progress is not None:
        step = f"{progress.step}/{progress.total_steps or '?'}"
        loss = "-" if progress.loss is None else f"{progress.loss:.4f}"
        # Until the new job has made a step, the rate is that of the one before.
        of_this_job = progress.written > datetime.fromisoformat(record.submitted).timestamp()
        if progress.pairs_per_second is not None and of_this_job:
            rate = f"{progress.pairs_per_second:,.0f}"
        if progress.seconds_left is not None and of_this_job and state.state in LIVE:
            left = str(timedelta(seconds=round(progress.seconds_left)))
    cells = (
        _shown(job.results),
        state.state,
        step,
        rate,
        loss,
        left,
        str(state.restarts),
        record.job_id,
        state.nodes or "-",
    )
    return cells, state.line


def _shown(folder: Path) -> str:
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)

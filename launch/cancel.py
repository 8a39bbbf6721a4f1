"""`cancel`: end jobs, which save at their next step."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from launch.scheduler import cancel_jobs
from launch.states import LIVE, states_of
from launch.status import jobs_within


def cancel(folders: Sequence[Path]) -> list[str]:
    """The numbers of the jobs that were told to end: those at or below `folders` that go on.

    Raises InputError for a folder without any job.
    """
    jobs = jobs_within(folders)
    live = [
        job
        for job, each in zip(jobs, states_of(jobs, must_know=True), strict=True)
        if each.state in LIVE
    ]
    records = [job.record() for job in live]
    on_slurm = [each.job_id for each in records if each.executor == "slurm"]
    if on_slurm:
        # Before it is written down: what Slurm refuses to end goes on.
        cancel_jobs(on_slurm)
    for job, record in zip(live, records, strict=True):
        job.add("cancelled")
        if record.executor == "local":
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(int(record.job_id), signal.SIGTERM)
    return [each.job_id for each in records]

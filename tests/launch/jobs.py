"""Submissions as the launcher leaves them, without a scheduler."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Literal

from launch.records import JobFolder, JobRecord, new_job_folder


def submitted(
    results: Path,
    *,
    command: tuple[str, ...] = ("distributed_pretrain", "pretrain", "a.yaml"),
    executor: Literal["slurm", "local", "debug"] = "local",
    # No process has it.
    job_id: str = "99999999",
    ranks: int = 1,
) -> JobFolder:
    """A job about `results` with its record and no event yet."""
    job = new_job_folder(results, command[1])
    job.write_record(
        JobRecord(
            executor=executor,
            job_id=job_id,
            command=command,
            submission=job.path,
            nodes=1,
            ranks=ranks,
            host=socket.gethostname(),
            requeues=20,
            submitted="2026-01-01T00:00:00+00:00",
            revision=None,
        )
    )
    return job

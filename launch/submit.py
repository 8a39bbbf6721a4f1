"""`submit`: one command of the project as one job."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from data_shards.records.errors import InputError
from data_shards.records.manifest import write_text_atomically
from launch.commands import Command
from launch.config import ClusterConfig
from launch.rank import Place, RankTask, rank_variables
from launch.records import JobFolder, JobRecord, new_job_folder, newest_job
from launch.scheduler import refuse_unknown_partition, refuse_what_slurm_refuses
from launch.slurm import CODE, LOCAL_REQUEUES, python_command, sbatch_script, submit_tasks
from launch.snapshot import revision, take_snapshot
from launch.states import LIVE, states_of


def submit(cluster: ClusterConfig, command: Command) -> str:
    """Queue `command`, or start it where the executor is no queue; what to tell the user.

    Raises InputError, before anything is queued, for what cannot run.
    """
    check(cluster, [command])
    refuse_running(command.folder)
    with job_folder_for(command) as job:
        take_snapshot(job.path / CODE)
        task = prepared_task(cluster, command, job)
        name = command.folder.name
        [number] = submit_checked(cluster, [task], name=name, submission=job.path)
        job.write_record(record_of(cluster, command, number, submission=job.path))
    return number


@contextmanager
def job_folder_for(command: Command) -> Iterator[JobFolder]:
    """A new job folder, which goes again when nothing was submitted."""
    job = new_job_folder(command.folder, command.verb)
    try:
        yield job
    finally:
        if not job.record_file.exists():
            shutil.rmtree(job.path)
            with suppress(OSError):  # not empty: there are older ones, or results
                job.path.parent.rmdir()
                job.results.rmdir()


def dry_run(cluster: ClusterConfig, command: Command) -> str:
    """The script that `submit` would give to Slurm, and what each rank would run."""
    check(cluster, [command])
    submission = command.folder / "jobs" / f"NNN-{command.verb}"
    task = _task(cluster, command, JobFolder(submission))
    place = Place("", 0, cluster.ranks, 0, cluster.ranks_on_node, 0, Path())
    variables = {"OMP_NUM_THREADS": str(cluster.cpus_per_rank)}
    if cluster.ranks > 1:
        variables |= rank_variables(place, "<rank 0's host>", "<a port free there>")
        variables |= {"RANK": f"<0..{cluster.ranks - 1}>"}
        variables |= {"LOCAL_RANK": f"<0..{cluster.ranks_on_node - 1}>"}
    script = sbatch_script(cluster, name=command.folder.name, submission=submission)
    shown = " ".join(f"{name}={value}" for name, value in variables.items())
    python = python_command(cluster, submission)
    command_line = f"{shown} \\\n  {python} -P -m {shlex.join(task.words)}"
    return f"{script}\n# each of {cluster.ranks} ranks\n{command_line}"


def check(cluster: ClusterConfig, commands: Sequence[Command]) -> None:
    """Raise InputError for a command that cannot run, or not on this cluster."""
    if cluster.executor == "debug" and cluster.ranks > 1:
        raise InputError(
            f"executor=debug runs one rank in this process, not {cluster.ranks}: pass nodes=1 "
            "gpus_per_node=1 (0 without a GPU) ranks_per_node=null"
        )
    for command in commands:
        command.check(ranks=cluster.ranks)


def refuse_running(results: Path) -> None:
    """Raise InputError when a job about these results waits or runs."""
    job = newest_job(results)
    if job is not None and states_of([job])[0].state in LIVE:
        raise InputError(
            f"{results}: job {job.record().job_id} is about it and has not ended: see "
            f"`python -m launch status {results}`, or cancel it first"
        )


def prepared_task(cluster: ClusterConfig, command: Command, job: JobFolder) -> RankTask:
    """What each rank does, with the resolved profile written into the job's folder."""
    if command.resolved_profile is not None:
        write_text_atomically(job.profile, command.resolved_profile)
    return _task(cluster, command, job)


def _task(cluster: ClusterConfig, command: Command, job: JobFolder) -> RankTask:
    keeps = command.resolved_profile is not None
    return RankTask(
        job=job.path,
        words=command.words_with(job.profile) if keeps else command.words,
        requeues=min(cluster.requeues, LOCAL_REQUEUES)
        if cluster.executor == "local"
        else cluster.requeues,
        cpus=cluster.cpus_per_rank,
        master_port=cluster.master_port,
    )


def submit_checked(
    cluster: ClusterConfig, tasks: Sequence[RankTask], *, name: str, submission: Path
) -> list[str]:
    """`submit_tasks`, after Slurm was asked whether it would take the script."""
    if cluster.executor == "slurm":
        if cluster.partition is not None:
            refuse_unknown_partition(cluster.partition)
        script = submission / "checked.sh"
        text = sbatch_script(cluster, name=name, submission=submission, tasks=len(tasks))
        write_text_atomically(script, text)
        try:
            refuse_what_slurm_refuses(script)
        finally:
            script.unlink()
    return submit_tasks(cluster, tasks, name=name, submission=submission)


def record_of(
    cluster: ClusterConfig, command: Command, number: str, *, submission: Path
) -> JobRecord:
    """What is kept of a submission."""
    return JobRecord(
        executor=cluster.executor,
        job_id=number,
        command=command.words,
        submission=submission,
        nodes=cluster.nodes,
        ranks=cluster.ranks,
        requeues=cluster.requeues,
        submitted=datetime.now(UTC).isoformat(timespec="seconds"),
        revision=revision(),
    )

"""`submit`: one command of the project as one job."""

from __future__ import annotations

import shlex
import shutil
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from data_shards.errors import InputError
from data_shards.files.atomic import write_text_atomically
from data_shards.files.lock import locked
from launch.invocation import Invocation
from launch.rank import Place, RankTask, rank_variables
from launch.records import JOBS, JobFolder, JobRecord, new_job_folder, newest_job
from launch.scheduler import refuse_unknown_partition
from launch.settings import ClusterConfig
from launch.slurm import CODE, LOCAL_REQUEUES, python_command, sbatch_script, submit_tasks
from launch.snapshot import revision, take_snapshot
from launch.states import LIVE, states_of


def submit(cluster: ClusterConfig, invocation: Invocation) -> str:
    """The number of the job that runs `command`; with `debug` it has run when this returns.

    Raises InputError, with nothing queued and nothing left behind, for what cannot run.
    """
    check(cluster, [invocation])
    check_queue(cluster)
    with submitting(invocation.folder):
        refuse_running(invocation.folder)
        with (
            job_folder_for(invocation.folder, invocation.command.name) as job,
            undisturbed(cluster),
        ):
            take_snapshot(job.path / CODE)
            task = prepared_task(cluster, invocation, job)
            [number] = submit_tasks(
                cluster, [task], name=invocation.folder.name, submission=job.path
            )
            job.write_record(record_of(cluster, invocation, number, submission=job.path))
    return number


@contextmanager
def submitting(results: Path) -> Iterator[None]:
    """Nobody else submits about `results` meanwhile; folders made in vain go again."""
    busy = f"{results}: somebody else submits a job about it at this moment: try it again"
    try:
        with locked(results / JOBS / "submitting.lock", busy=busy):
            yield
    finally:
        _remove_if_empty(results)


@contextmanager
def job_folder_for(results: Path, verb: str) -> Iterator[JobFolder]:
    """A new job folder, which goes again when submitting failed."""
    job = new_job_folder(results, verb)
    try:
        yield job
    except BaseException:
        if not (job.record_file.exists() or any(job.path.glob("*_submitted.pkl"))):
            shutil.rmtree(job.path)
            _remove_if_empty(results)
        raise


def _remove_if_empty(results: Path) -> None:
    with suppress(OSError):  # not empty: the usual case
        (results / JOBS).rmdir()
        results.rmdir()


@contextmanager
def undisturbed(cluster: ClusterConfig) -> Iterator[None]:
    """Ctrl-C waits: between a job's start and its record it would make a job nobody knows of."""
    if cluster.executor == "debug":
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def dry_run(cluster: ClusterConfig, invocation: Invocation) -> str:
    """The script that `submit` would give to Slurm, and what each rank would run."""
    check(cluster, [invocation])
    submission = invocation.folder / "jobs" / f"NNN-{invocation.command.name}"
    task = _task(cluster, invocation, JobFolder(submission))
    place = Place("", 0, cluster.ranks, 0, cluster.ranks_on_node, 0, Path())
    variables = {"OMP_NUM_THREADS": str(cluster.cpus_per_rank)}
    if cluster.ranks > 1:
        variables |= rank_variables(place, "<rank 0's host>", "<a port free there>")
        variables |= {"RANK": f"<0..{cluster.ranks - 1}>"}
        variables |= {"LOCAL_RANK": f"<0..{cluster.ranks_on_node - 1}>"}
    script = sbatch_script(cluster, name=invocation.folder.name, submission=submission)
    shown = " ".join(f"{name}={value}" for name, value in variables.items())
    python = python_command(cluster, submission)
    command_line = f"{shown} \\\n  {python} -P -m {shlex.join(task.words)}"
    return f"{script}\n# each of {cluster.ranks} ranks\n{command_line}"


def check(cluster: ClusterConfig, invocations: Sequence[Invocation]) -> None:
    """Raise InputError for a command that cannot run, or not on this cluster."""
    if cluster.executor == "debug" and cluster.ranks > 1:
        raise InputError(
            f"executor=debug runs one rank in this process, not {cluster.ranks}: pass nodes=1 "
            "gpus_per_node=1 (0 without a GPU) ranks_per_node=null"
        )
    for invocation in invocations:
        invocation.check(ranks=cluster.ranks)


def check_queue(cluster: ClusterConfig) -> None:
    """Raise InputError for a queue that is not there."""
    if cluster.executor == "slurm" and cluster.partition is not None:
        refuse_unknown_partition(cluster.partition)
    nodes = cluster.environment
    if cluster.executor != "slurm" and (nodes.modules or nodes.setup):
        print(
            f"executor={cluster.executor}: environment.modules and setup are for nodes, and left "
            "out here",
            file=sys.stderr,
        )


def refuse_running(results: Path) -> None:
    """Raise InputError when a job about these results waits or runs."""
    job = newest_job(results)
    if job is None:
        return
    record, state = job.record(), states_of([job], must_know=True)[0]
    elsewhere = record.executor == "local" and record.host != socket.gethostname()
    if state.state in LIVE or (elsewhere and state.state == "unknown"):
        where = f" on {record.host}" if elsewhere else ""
        raise InputError(
            f"{results}: job {record.job_id}{where} is about it and has not ended: see "
            f"`python -m launch status {results}`, or cancel it first"
        )


def prepared_task(cluster: ClusterConfig, invocation: Invocation, job: JobFolder) -> RankTask:
    """What each rank does, with the resolved profile written into the job's folder."""
    if invocation.resolved_profile is not None:
        write_text_atomically(job.profile, invocation.resolved_profile)
    return _task(cluster, invocation, job)


def _task(cluster: ClusterConfig, invocation: Invocation, job: JobFolder) -> RankTask:
    keeps = invocation.resolved_profile is not None
    return RankTask(
        job=job.path,
        words=invocation.words_with(job.profile) if keeps else invocation.words,
        requeues=min(cluster.requeues, LOCAL_REQUEUES)
        if cluster.executor == "local"
        else cluster.requeues,
        cpus=cluster.cpus_per_rank,
        master_port=cluster.master_port,
    )


def record_of(
    cluster: ClusterConfig, invocation: Invocation, number: str, *, submission: Path
) -> JobRecord:
    """What is kept of a submission."""
    return JobRecord(
        executor=cluster.executor,
        job_id=number,
        command=invocation.words,
        submission=submission,
        nodes=cluster.nodes,
        ranks=cluster.ranks,
        requeues=cluster.requeues,
        host=socket.gethostname(),
        submitted=datetime.now(UTC).isoformat(timespec="seconds"),
        revision=revision(),
    )

"""`submit` and `cancel`: one command of the project as one job, and the end of jobs."""

from __future__ import annotations

import functools
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from data_shards.command_line import shell_line
from data_shards.errors import InputError
from data_shards.files.atomic import write_text_atomically
from data_shards.files.lock import locked
from launch.invocation import Invocation
from launch.rank import Place, RankTask, rank_variables
from launch.records import JOBS, JobFolder, JobRecord, new_job_folder, newest_job
from launch.script import CODE, python_command, refuse_folder
from launch.settings import ClusterConfig
from launch.slurm import EXECUTORS, sbatch_script
from launch.states import jobs_within, read_jobs

CHECKOUT = Path(__file__).parents[1]
SNAPSHOT = ("data_shards", "distributed_pretrain", "launch", "configs")
# The loader's threads and the tokenizer's have the other cores.
_THREADS_BESIDE_A_GPU = 2


def submit(cluster: ClusterConfig, invocation: Invocation) -> str:
    """The number of the job that runs the command; with `debug` it has run when this returns.

    Raises InputError, with nothing queued and nothing left behind, for what cannot run.
    """
    refuse_folder(invocation.folder, cluster)
    check(cluster, [invocation])
    EXECUTORS[cluster.executor].check_queue(cluster)
    with submitting(invocation.folder):
        _refuse_running(invocation.folder)
        return queue(cluster, [invocation])[0]


def queue(
    cluster: ClusterConfig, invocations: Sequence[Invocation], *, at: Path | None = None
) -> list[str]:
    """The numbers of the jobs that run the commands, each with a folder and a record.

    `at` has the snapshot, and gets start files and logs; of a single job its own folder may do.
    """
    executor = EXECUTORS[cluster.executor]
    with ExitStack() as folders:
        jobs = [
            folders.enter_context(new_job(each.folder, each.command.name)) for each in invocations
        ]
        if at is None:
            at = jobs[0].path
            take_snapshot(at / CODE)
        for job, invocation in zip(jobs, invocations, strict=True):
            if invocation.resolved_profile is not None:
                write_text_atomically(job.profile, invocation.resolved_profile)
        tasks = [rank_task(cluster, *each) for each in zip(invocations, jobs, strict=True)]
        if executor.in_background:
            # Ctrl-C waits: between a job's start and its record nobody would know of it.
            before = signal.signal(signal.SIGINT, signal.SIG_IGN)
            folders.callback(signal.signal, signal.SIGINT, before)
        numbers = executor.submit(cluster, tasks, at)
        record = functools.partial(
            JobRecord,
            executor=cluster.executor,
            submission=at,
            nodes=cluster.nodes,
            ranks=cluster.ranks,
            requeues=cluster.requeues,
            host=socket.gethostname(),
            submitted=datetime.now(UTC).isoformat(timespec="seconds"),
            revision=_revision(),
        )
        for job, invocation, number in zip(jobs, invocations, numbers, strict=True):
            job.write_record(record(job_id=number, command=invocation.words))
    return numbers


def cancel(folders: Sequence[Path]) -> list[str]:
    """The numbers of the jobs that were told to end: those at or below `folders` that go on.

    Raises InputError, when the others were told, for those whose records cannot be read.
    """
    found = jobs_within(folders)
    unreadable = [job for job in found if job.trouble() is not None]
    sound = [job for job in found if job not in unreadable]
    live = [job for job in read_jobs(sound, must_know=True) if job.is_live]
    for name, executor in EXECUTORS.items():
        executor.cancel([job for job in live if job.record.executor == name])
    if unreadable:
        raise InputError(
            f"{unreadable[0].trouble()}; whether its job goes on cannot be told "
            f"({len(unreadable)} such, {len(live)} others told to end)"
        )
    return [job.record.job_id for job in live]


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
def new_job(results: Path, verb: str) -> Iterator[JobFolder]:
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


def dry_run(cluster: ClusterConfig, invocation: Invocation) -> str:
    """The script that `submit` would give to Slurm, and what each rank would run."""
    refuse_folder(invocation.folder, cluster)
    check(cluster, [invocation])
    submission = invocation.folder / JOBS / f"NNN-{invocation.command.name}"
    task = rank_task(cluster, invocation, JobFolder(submission))
    place = Place("", 0, cluster.ranks, 0, cluster.ranks_on_node, 0, Path())
    variables = {"OMP_NUM_THREADS": str(cluster.cpus_per_rank)}
    if cluster.ranks > 1:
        variables |= rank_variables(place, "<rank 0's host>", "<a port free there>")
        variables |= {"RANK": f"<0..{cluster.ranks - 1}>"}
        variables |= {"LOCAL_RANK": f"<0..{cluster.ranks_on_node - 1}>"}
    script = sbatch_script(cluster, submission=submission)
    shown = " ".join(f"{name}={value}" for name, value in variables.items())
    python = python_command(cluster, submission)
    command_line = f"{shown} \\\n  {python} -P -m {shlex.join(task.words)}"
    return f"{script}\n# each of {cluster.ranks} ranks\n{command_line}"


def check(cluster: ClusterConfig, invocations: Sequence[Invocation]) -> None:
    """Raise InputError for a command that cannot run, or not on this cluster."""
    if cluster.ranks > EXECUTORS[cluster.executor].most_ranks:
        raise InputError(
            f"executor={cluster.executor} runs one rank in this process, not {cluster.ranks}: pass "
            "nodes=1 gpus_per_node=1 (0 without a GPU) ranks_per_node=null"
        )
    for invocation in invocations:
        invocation.check(ranks=cluster.ranks)


def _refuse_running(results: Path) -> None:
    """Raise InputError when a job about these results waits or runs."""
    newest = newest_job(results)
    if newest is None:
        return
    [job] = read_jobs([newest], must_know=True)
    if job.is_live or job.may_live:
        where = f" on {job.record.host}" if job.may_live else ""
        raise InputError(
            f"{results}: job {job.record.job_id}{where} is about it and has not ended: see "
            f"`{shell_line('python', '-m', 'launch', 'status', results)}`, or cancel it first"
        )


def rank_task(cluster: ClusterConfig, invocation: Invocation, job: JobFolder) -> RankTask:
    """What each rank of a job of the command does."""
    keeps = invocation.resolved_profile is not None
    return RankTask(
        job=job.path,
        words=invocation.words_with(job.profile) if keeps else invocation.words,
        goes_on_by=invocation.command.goes_on_by_of(type(invocation.settings)),
        requeues=min(cluster.requeues, EXECUTORS[cluster.executor].most_requeues),
        threads=min(cluster.cpus_per_rank, _THREADS_BESIDE_A_GPU)
        if cluster.gpus_per_node
        else cluster.cpus_per_rank,
        master_port=cluster.master_port,
    )


def take_snapshot(folder: Path) -> None:
    """Copy packages and profiles into `folder`: a job that is requeued runs what was submitted."""
    for name in SNAPSHOT:
        if (CHECKOUT / name).is_dir():
            nothing = shutil.ignore_patterns("__pycache__")
            shutil.copytree(CHECKOUT / name, folder / name, ignore=nothing)


@functools.cache
def _revision() -> str | None:
    """The commit of the checkout, with `-dirty` when it was edited since; None outside git."""
    command = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None

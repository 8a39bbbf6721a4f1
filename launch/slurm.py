"""submitit: jobs on Slurm, on this machine or in this process, each kind behind one interface.

One task of Slurm is one rank. torchrun's one task a node would hide what a rank leaves with, and
its agent dies of the SIGUSR2 that Slurm sends before the time limit, instead of passing it on.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import shlex
import signal
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import UncompletedJobError
from submitit.helpers import DelayedSubmission, environment_variables
from submitit.local.local import LOCAL_REQUEUE_RETURN_CODE
from submitit.slurm.slurm import _make_sbatch_string

from data_shards.errors import InputError
from launch.rank import Place, RankTask
from launch.records import Job, JobFolder
from launch.scheduler import Answer, cancel_jobs, ended_jobs, queued_jobs, refuse_unknown_partition
from launch.script import (
    CODE,
    GRANTED_WISH,
    REQUEUE_WISH,
    job_variables,
    python_command,
    slurm_parameters,
)
from launch.settings import ClusterConfig, ExecutorName

_OF_THE_TERMINAL = (signal.SIGINT, signal.SIGHUP)


class Executor(ABC):
    """A place to run jobs in, and who tells how those are that run there."""

    # Whether jobs wait for their turn there; if not, whoever has many keeps some back.
    has_queue = False
    # Whether jobs outlive the command that submitted them, and leave logs.
    in_background = True
    most_ranks = most_requeues = sys.maxsize

    def check_queue(self, cluster: ClusterConfig) -> None:
        """Raise InputError for a queue that is not there; say what of the profile is left out."""
        if cluster.environment.modules or cluster.environment.setup:
            print(
                f"executor={cluster.executor}: environment.modules and setup are for nodes, and "
                "left out here",
                file=sys.stderr,
            )

    @abstractmethod
    def submit(self, cluster: ClusterConfig, tasks: Sequence[RankTask], at: Path) -> list[str]:
        """The numbers of the jobs that run `tasks`; start files and logs go to the folder `at`."""

    @abstractmethod
    def look(self, jobs: Sequence[Job], *, must_know: bool) -> list[Job]:
        """Its jobs as they are. `must_know`: InputError where nobody answers, not `unknown`."""

    @abstractmethod
    def cancel(self, jobs: Sequence[Job]) -> None:
        """Tell jobs to save and end, and write down that they were told."""


class _Slurm(Executor):
    """A Slurm cluster; several tasks make one array."""

    has_queue = True

    def check_queue(self, cluster: ClusterConfig) -> None:
        if cluster.partition is not None:
            refuse_unknown_partition(cluster.partition)

    def submit(self, cluster: ClusterConfig, tasks: Sequence[RankTask], at: Path) -> list[str]:
        executor = submitit.AutoExecutor(
            at,
            cluster="slurm",
            slurm_max_num_timeout=cluster.requeues,
            slurm_python=python_command(cluster, at),
        )
        parameters = slurm_parameters(cluster, submission=at)
        executor.update_parameters(**{f"slurm_{key}": value for key, value in parameters.items()})
        # One alone is no array.
        together = executor.batch() if len(tasks) > 1 else contextlib.nullcontext()
        try:
            # submitit prints what sbatch says, and raises it too.
            with contextlib.redirect_stderr(io.StringIO()), together:
                jobs = [executor.submit(RankStart(task)) for task in tasks]
            return [str(job.job_id) for job in jobs]
        except UncompletedJobError as error:
            lines = [line.strip() for line in str(error).splitlines()]
            plain = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in lines]
            said = "; ".join(filter(None, plain))
            raise InputError(
                f"Slurm would not take this job: {said}: change the cluster profile"
            ) from error

    def look(self, jobs: Sequence[Job], *, must_know: bool) -> list[Job]:
        # One question to the queue and one to the accounting, for all of them.
        unknown = Answer("unknown", line="Slurm no longer knows it")
        found: dict[str, Answer] = {}
        try:
            found = queued_jobs([job.record.job_id for job in jobs])
            missed = [job for job in jobs if job.record.job_id not in found and not job.last_word]
            found |= ended_jobs([job.record.job_id for job in missed])
        except InputError as error:
            if must_know:
                raise
            unknown = Answer("unknown", line=str(error))
        return [replace(job, **found.get(job.record.job_id, unknown)._asdict()) for job in jobs]

    def cancel(self, jobs: Sequence[Job]) -> None:
        # Before it is written down: what Slurm refuses to end goes on.
        if jobs:
            cancel_jobs([job.record.job_id for job in jobs])
        for job in jobs:
            job.folder.add("cancelled")


class _Local(Executor):
    """The same ranks as processes of this machine."""

    # submitit's own limit.
    most_requeues = 5

    def submit(self, cluster: ClusterConfig, tasks: Sequence[RankTask], at: Path) -> list[str]:
        executor = submitit.LocalExecutor(at, python=python_command(cluster, at))
        executor.update_parameters(
            timeout_min=cluster.time_minutes,
            tasks_per_node=cluster.ranks,
            gpus_per_node=cluster.nodes * cluster.gpus_per_node,
            signal_delay_s=cluster.signal_seconds,
            stderr_to_stdout=True,
        )
        variables = job_variables(cluster) | {"PYTHONPATH": str(at / CODE)}
        with environment_variables(**variables), _no_terminal():
            return [str(executor.submit(RankStart(task)).job_id) for task in tasks]

    def look(self, jobs: Sequence[Job], *, must_know: bool) -> list[Job]:
        del must_know
        return [self._look(job) for job in jobs]

    def _look(self, job: Job) -> Job:
        host = job.record.host
        if host != socket.gethostname():
            return replace(job, line=f"ask on {host}, where it runs", may_live=True)
        # Numbers of processes are used again. -ww: not cut at the width of a terminal.
        words = ["ps", "-ww", "-o", "command=", "-p", job.record.job_id]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if "submitit.local._local" not in done.stdout:
            return replace(job, line="it ended without a word")
        return replace(job, state="running" if job.events else "queued", nodes=host)

    def cancel(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.folder.add("cancelled")
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(int(job.record.job_id), signal.SIGTERM)


class _Debug(_Local):
    """One rank in the process that submits; a debugger opens where it fails."""

    in_background = False
    most_ranks = 1

    def submit(self, cluster: ClusterConfig, tasks: Sequence[RankTask], at: Path) -> list[str]:
        del cluster
        executor = submitit.AutoExecutor(at, cluster="debug")
        jobs = [executor.submit(_start_here, task) for task in tasks]
        for job in jobs:
            job.result()
        return [str(job.job_id) for job in jobs]


EXECUTORS: dict[ExecutorName, Executor] = {"slurm": _Slurm(), "local": _Local(), "debug": _Debug()}


@dataclass(frozen=True)
class RankStart:
    """What submitit pickles into the submission folder, and calls in each task."""

    task: RankTask

    def __call__(self) -> None:
        """Run this process's rank; see `RankTask.run`."""
        environment = submitit.JobEnvironment()
        is_local = environment.cluster == "local"
        if is_local:
            os.setsid()  # Ctrl-C in the shell that submitted is not for this job
        place = Place(
            job_id=environment.job_id,
            rank=environment.global_rank,
            ranks=environment.num_tasks,
            local_rank=environment.local_rank,
            local_ranks=environment.num_tasks // environment.num_nodes,
            restart=int(os.environ.get("SLURM_RESTART_COUNT", 0)),
            log=environment.paths.stdout,
            granted=None if is_local else _granted(environment),
        )
        if self.task.run(place):
            if is_local:
                sys.exit(LOCAL_REQUEUE_RETURN_CODE)
            wish = f"{REQUEUE_WISH}{environment.raw_job_id}-{place.restart}"
            (environment.paths.folder / wish).touch()

    def checkpoint(self) -> DelayedSubmission:
        """Itself: all that a start needs is on the disk (submitit asks before it requeues)."""
        return DelayedSubmission(self)


def _granted(environment: submitit.JobEnvironment) -> frozenset[int]:
    """The restarts after which the job put itself into the queue again, by its script's word."""
    found = environment.paths.folder.glob(f"{GRANTED_WISH}{environment.raw_job_id}-*")
    return frozenset(int(each.name.rpartition("-")[2]) for each in found)


def _start_here(task: RankTask) -> None:
    module, *arguments = task.words
    job = JobFolder(task.job)
    job.add("started")
    status = importlib.import_module(f"{module}.__main__").main(arguments)
    if status:
        sys.exit(status)
    job.add("finished")


def sbatch_script(cluster: ClusterConfig, *, submission: Path, tasks: int = 1) -> str:
    """The text of the script that submitit gives to sbatch; `tasks` > 1 makes it a job array."""
    array: dict[str, Any] = {"map_count": tasks} if tasks > 1 else {}
    python = python_command(cluster, submission)
    command = f"{python} -u -m submitit.core._submit {shlex.quote(str(submission))}"
    parameters = slurm_parameters(cluster, submission=submission) | array
    return str(_make_sbatch_string(command=command, folder=submission, **parameters))


@contextlib.contextmanager
def _no_terminal() -> Iterator[None]:
    """Give what starts meanwhile no terminal or pipe of ours: it lives on when we have ended.

    Signals of the terminal that are ignored here are ignored there.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.ExitStack() as restoring:
        nothing = os.open(os.devnull, os.O_RDWR)
        restoring.callback(os.close, nothing)
        for number in range(3):
            ours = os.dup(number)
            restoring.callback(os.close, ours)
            restoring.callback(os.dup2, ours, number)
            os.dup2(nothing, number)
        for each in _OF_THE_TERMINAL:
            restoring.callback(signal.signal, each, signal.signal(each, signal.SIG_IGN))
        yield

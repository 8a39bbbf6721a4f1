"""submitit: the sbatch script, and jobs on Slurm, on this machine or in this process.

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
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import UncompletedJobError
from submitit.helpers import DelayedSubmission, environment_variables
from submitit.local.local import LOCAL_REQUEUE_RETURN_CODE
from submitit.slurm.slurm import _make_sbatch_string

from data_shards.command_line import GOES_ON
from data_shards.errors import InputError
from launch.rank import Place, RankTask
from launch.records import JobFolder
from launch.settings import ApptainerConfig, ClusterConfig, PyxisConfig

# What rank 0 leaves beside the logs when the job is to go on: see `_requeue_lines`.
REQUEUE_WISH = "requeue-"
_OF_THE_TERMINAL = (signal.SIGINT, signal.SIGHUP)
# submitit's own, for one local job.
LOCAL_REQUEUES = 5
# The snapshot in a submission folder.
CODE = "code"


@dataclass(frozen=True)
class RankStart:
    """What submitit pickles into the submission folder, and calls in each task."""

    task: RankTask

    def __call__(self) -> None:
        """Run this process's rank; see `RankTask.run`."""
        environment = submitit.JobEnvironment()
        if environment.cluster == "debug":
            self._run_here()
            return
        if environment.cluster == "local":
            # Ctrl-C in the shell that submitted is not for this job.
            os.setsid()
        place = Place(
            job_id=environment.job_id,
            rank=environment.global_rank,
            ranks=environment.num_tasks,
            local_rank=environment.local_rank,
            local_ranks=environment.num_tasks // environment.num_nodes,
            restart=int(os.environ.get("SLURM_RESTART_COUNT", 0)),
            log=environment.paths.stdout,
        )
        if not self.task.run(place):
            return
        if environment.cluster == "local":
            sys.exit(LOCAL_REQUEUE_RETURN_CODE)
        wish = f"{REQUEUE_WISH}{environment.raw_job_id}-{place.restart}"
        (environment.paths.folder / wish).touch()

    def checkpoint(self) -> DelayedSubmission:
        """Itself: all that a start needs is on the disk (submitit asks before it requeues)."""
        return DelayedSubmission(self)

    def _run_here(self) -> None:
        module, *arguments = self.task.words
        job = JobFolder(self.task.job)
        job.add("started")
        status = importlib.import_module(f"{module}.__main__").main(arguments)
        if status:
            sys.exit(status)
        job.add("finished")


def sbatch_script(cluster: ClusterConfig, *, name: str, submission: Path, tasks: int = 1) -> str:
    """The text of the script that submitit gives to sbatch; `tasks` > 1 makes it a job array.

    Nothing but the arguments decides it.
    """
    array: dict[str, Any] = {"map_count": tasks} if tasks > 1 else {}
    python = python_command(cluster, submission)
    command = f"{python} -u -m submitit.core._submit {shlex.quote(str(submission))}"
    return str(
        _make_sbatch_string(
            command=command,
            folder=submission,
            **slurm_parameters(cluster, name=name, submission=submission),
            **array,
        )
    )


def slurm_parameters(cluster: ClusterConfig, *, name: str, submission: Path) -> dict[str, Any]:
    """submitit's parameters of the job (those of its sbatch script)."""
    memory = cluster.memory_gb_per_node
    wanted = {
        "job_name": name,
        "partition": cluster.partition,
        "time": cluster.time_minutes,
        "nodes": cluster.nodes,
        "ntasks_per_node": cluster.ranks_on_node,
        "cpus_per_task": cluster.cpus_per_rank,
        "gpus_per_node": cluster.gpus_per_node or None,
        "mem": None if memory is None else f"{round(memory * 1024)}M",
        "qos": cluster.qos,
        "account": cluster.account,
        "constraint": cluster.constraint,
        "exclude": cluster.exclude,
        "signal_delay_s": cluster.signal_seconds,
        "array_parallelism": cluster.running_at_most,
        "stderr_to_stdout": True,
        "setup": _setup_lines(cluster, submission),
        "teardown": _requeue_lines(submission),
        # A rank that fails ends the others, also before they have found each other.
        # srun no longer takes the cores from sbatch (since 22.05).
        "srun_args": [
            "--kill-on-bad-exit=1",
            f"--cpus-per-task={cluster.cpus_per_rank}",
            *_container_options(cluster, submission),
            *cluster.srun,
        ],
        "additional_parameters": {"requeue": True, **cluster.sbatch},
    }
    return {key: value for key, value in wanted.items() if value is not None}


def python_command(cluster: ClusterConfig, submission: Path) -> str:
    """The shell words that start Python in a task."""
    container = cluster.container
    if isinstance(container, ApptainerConfig):
        binds = _mounts(container.mounts, submission)
        words = ["apptainer", "exec", *(["--nv"] if cluster.gpus_per_node else [])]
        return shlex.join([*words, f"--bind={binds}", container.image, container.python])
    if container is not None:
        return container.python
    venv = cluster.environment.venv
    return shlex.quote(str(venv / "bin" / "python") if venv is not None else sys.executable)


def _container_options(cluster: ClusterConfig, submission: Path) -> list[str]:
    container = cluster.container
    if not isinstance(container, PyxisConfig):
        return []
    return [
        f"--container-image={container.image}",
        f"--container-mounts={_mounts(container.mounts, submission)}",
        f"--container-workdir={Path.cwd()}",
    ]


def _mounts(more: Sequence[str], submission: Path) -> str:
    # Of a sweep, `jobs` lies beside the folders of all tasks.
    ours = dict.fromkeys([Path.cwd(), submission.parent.parent])
    return ",".join([*(f"{each}:{each}" for each in ours), *more])


def _setup_lines(cluster: ClusterConfig, submission: Path) -> list[str]:
    environment = cluster.environment
    variables = job_variables(cluster)
    code = shlex.quote(str(submission / CODE))
    return [
        *(f"module load {shlex.quote(each)} || exit 1" for each in environment.modules),
        *environment.setup,
        *(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
        # Modules may have brought packages along.
        f'export PYTHONPATH={code}"${{PYTHONPATH:+:$PYTHONPATH}}"',
    ]


def job_variables(cluster: ClusterConfig) -> dict[str, str]:
    """What every rank finds in its environment, besides what the user's own shell has."""
    nccl = cluster.nccl.variables if cluster.gpus_per_node else {}
    # The snapshot, not what has become of the checkout: no module comes from the working folder.
    return nccl | dict(cluster.environment.variables) | {"PYTHONSAFEPATH": "1"}


def _requeue_lines(submission: Path) -> list[str]:
    """Requeue by the batch shell: after all ranks have ended, and outside any container.

    Only a job that Slurm itself calls RUNNING: one that is being cancelled, preempted or requeued
    by somebody else is theirs. A controller that is busy for a moment is asked again. The wish is
    of one start: what a start that Slurm cut short has left is not granted to the next.
    """
    start = '"$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}"'
    return [
        "status=$?",
        'tried() { for _ in 1 2 3 4 5 6; do "$@" && return; sleep 10; done; return 1; }',
        f"if [ -e {shlex.quote(str(submission))}/{REQUEUE_WISH}{start} ]; then",
        '  state=$(tried squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T) || state=unknown',
        '  if [ "$state" = RUNNING ]; then',
        '    tried scontrol requeue "$SLURM_JOB_ID" || state=unknown',
        "  fi",
        '  if [ "$state" = unknown ]; then',
        '    echo "saved, but Slurm did not answer: not requeued, submit it again" >&2',
        f"    status={GOES_ON}",
        "  fi",
        "fi",
        "exit $status",
    ]


def submit_tasks(
    cluster: ClusterConfig, tasks: Sequence[RankTask], *, name: str, submission: Path
) -> list[str]:
    """The scheduler's numbers of the jobs that run `tasks`; several make one array on Slurm.

    With `debug` the tasks have run when this returns.
    """
    starts = [RankStart(task) for task in tasks]
    if cluster.executor == "slurm":
        return _submit_to_slurm(cluster, starts, name=name, submission=submission)
    if cluster.executor == "debug":
        debug = submitit.AutoExecutor(submission, cluster="debug")
        return [_run_to_the_end(debug.submit(start)) for start in starts]
    local = submitit.LocalExecutor(submission, python=python_command(cluster, submission))
    local.update_parameters(
        timeout_min=cluster.time_minutes,
        tasks_per_node=cluster.ranks,
        gpus_per_node=cluster.nodes * cluster.gpus_per_node,
        signal_delay_s=cluster.signal_seconds,
        stderr_to_stdout=True,
    )
    variables = job_variables(cluster) | {"PYTHONPATH": str(submission / CODE)}
    with environment_variables(**variables), _no_terminal():
        return [str(local.submit(start).job_id) for start in starts]


def _run_to_the_end(job: submitit.Job[None]) -> str:
    job.result()
    return str(job.job_id)


def _submit_to_slurm(
    cluster: ClusterConfig, starts: Sequence[RankStart], *, name: str, submission: Path
) -> list[str]:
    executor = submitit.AutoExecutor(
        submission,
        cluster="slurm",
        slurm_max_num_timeout=cluster.requeues,
        slurm_python=python_command(cluster, submission),
    )
    parameters = slurm_parameters(cluster, name=name, submission=submission)
    executor.update_parameters(**{f"slurm_{key}": value for key, value in parameters.items()})
    try:
        # submitit prints what sbatch says, and raises it too.
        with contextlib.redirect_stderr(io.StringIO()):
            if len(starts) == 1:
                return [str(executor.submit(starts[0]).job_id)]
            with executor.batch():
                jobs = [executor.submit(start) for start in starts]
            return [str(job.job_id) for job in jobs]
    except UncompletedJobError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = "; ".join(line.removeprefix("sbatch: ").removeprefix("error: ") for line in lines)
        raise InputError(
            f"Slurm would not take this job: {said}: change the cluster profile"
        ) from error


@contextlib.contextmanager
def _no_terminal() -> Iterator[None]:
    """Give what starts meanwhile no terminal or pipe of ours: it lives on when we have ended.

    Signals of the terminal that are ignored here are ignored there.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(number) for number in range(3)]
    nothing = os.open(os.devnull, os.O_RDWR)
    handlers = {each: signal.signal(each, signal.SIG_IGN) for each in _OF_THE_TERMINAL}
    try:
        for number in range(3):
            os.dup2(nothing, number)
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number, copy in enumerate(saved):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nothing)

"""What a job's script says: Slurm's options, the environment of the ranks, and when to requeue."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_shards.command_line import GOES_ON
from data_shards.errors import InputError
from launch.settings import ApptainerConfig, ClusterConfig, PyxisConfig

# The snapshot in a submission folder.
CODE = "code"
# Fields of a cluster profile that sbatch has by the same name.
_AS_THEY_ARE = {"account", "constraint", "exclude", "nodes", "partition", "qos"}
# What rank 0 leaves beside the logs when the job is to go on: see `_requeue_lines`.
REQUEUE_WISH = "requeue-"
# What becomes of it when it is granted. Slurm's own requeues leave none.
GRANTED_WISH = "requeued-"
# What a path would become another by, and who reads it so.
_READ_OTHERWISE = {
    "%": "Slurm and submitit put numbers in its place",
    "\\": "Slurm leaves it out",
    ":": "paths of Python and of containers end there",
}
_READ_OTHERWISE_BY_CONTAINERS = {",": "the mounts of containers end there"}


def refuse_folder(folder: Path, cluster: ClusterConfig) -> None:
    """Raise InputError for a folder of jobs that their script would read as another one."""
    folders = [folder] if cluster.container is None else [folder, Path.cwd()]
    letters = _READ_OTHERWISE | (_READ_OTHERWISE_BY_CONTAINERS if cluster.container else {})
    for path in folders:
        for letter, why in letters.items():
            if letter in str(path):
                raise InputError(f"{path}: {letter!r} in the folder of a job: {why}: rename it")
        if not str(path).isprintable():
            raise InputError(f"{str(path)!r}: a line break or the like in its name: rename it")


def slurm_parameters(cluster: ClusterConfig, *, submission: Path) -> dict[str, Any]:
    """submitit's parameters of the job (those of its sbatch script)."""
    memory = cluster.memory_gb_per_node
    wanted = {
        # That of the folder of results.
        "job_name": submission.parent.parent.name,
        **cluster.model_dump(include=_AS_THEY_ARE),
        "time": cluster.time_minutes,
        "ntasks_per_node": cluster.ranks_on_node,
        "cpus_per_task": cluster.cpus_per_rank,
        "gpus_per_node": cluster.gpus_per_node or None,
        "mem": None if memory is None else f"{round(memory * 1024)}M",
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
    wish = f"{shlex.quote(str(submission))}/{REQUEUE_WISH}{start}"
    return [
        "status=$?",
        'tried() { for _ in 1 2 3 4 5 6; do "$@" && return; sleep 10; done; return 1; }',
        f"if [ -e {wish} ]; then",
        '  state=$(tried squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T) || state=unknown',
        '  if [ "$state" = RUNNING ]; then',
        f"    mv {wish} {shlex.quote(str(submission))}/{GRANTED_WISH}{start}",
        '    tried scontrol requeue "$SLURM_JOB_ID" || state=unknown',
        "  fi",
        '  if [ "$state" = unknown ]; then',
        '    echo "saved, but Slurm did not answer: not requeued, submit it again" >&2',
        f"    status={GOES_ON}",
        "  fi",
        "fi",
        "exit $status",
    ]

"""`sweep` and `results`: many tasks, of which only what is missing is ever submitted."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

from data_shards.command_line import DONE, FAILED
from data_shards.errors import InputError
from data_shards.files.atomic import write_text_atomically
from data_shards.processes import available_cores
from data_shards.profiles import Config
from distributed_pretrain.experiments.grid.points import Point
from distributed_pretrain.experiments.grid.pool import run_all
from distributed_pretrain.experiments.tables import Row
from launch.invocation import Invocation, find_command, read_invocation
from launch.records import JOBS, Job, JobFolder, State, newest_job, read_document
from launch.script import CODE, refuse_folder
from launch.settings import ClusterConfig
from launch.slurm import EXECUTORS, sbatch_script
from launch.states import read_jobs
from launch.submit import cancel, check, new_job, queue, submitting, take_snapshot

SWEEP_FILE = "sweep.json"
# Slurm's default MaxArraySize is 1001.
TASKS_A_JOB = 1000
TaskState: TypeAlias = State | Literal["not submitted"]


class _Task(Config):
    """A point as it is kept; the name, that of its folder, is for readers."""

    name: str = ""
    words: tuple[str, ...]
    values: dict[str, str]


class _Sweep(Config):
    """What `SWEEP_FILE` holds."""

    tasks: tuple[_Task, ...]


def sweep(cluster: ClusterConfig, points: Sequence[Point], folder: Path) -> int:
    """How many of the points were submitted: those that have not finished and do not go on.

    Raises InputError, before anything is queued, for what cannot run, and for a folder that holds
    a task of the same name with another command.
    """
    folder = folder.absolute()
    refuse_folder(folder, cluster)
    with submitting(folder):
        tasks = _missing(cluster, points, folder)
        executor = EXECUTORS[cluster.executor]
        executor.check_queue(cluster)
        if not tasks:
            return 0
        with new_job(folder, "sweep") as submission:
            take_snapshot(submission.path / CODE)
            if executor.has_queue:
                return _queue_arrays(cluster, tasks, points, submission)
            remember(folder, points)
            runs = [_JobRun(cluster, task, submission.path) for task in tasks]
            if not executor.in_background:
                for run in runs:
                    run.start()
                return len(runs)
            # As many at a time as this machine has cores for, until they have ended.
            fitting = max(1, available_cores() // (cluster.ranks * cluster.cpus_per_rank))
            if run_all(runs, at_once=min(cluster.running_at_most, fitting)).interrupted:
                raise KeyboardInterrupt
            return len(runs)


def dry_run_sweep(cluster: ClusterConfig, points: Sequence[Point], folder: Path) -> str:
    """The script of the array that `sweep` would submit now, and the command of each task."""
    folder = folder.absolute()
    refuse_folder(folder, cluster)
    tasks = _missing(cluster, points, folder)
    submission = folder / JOBS / "NNN-sweep"
    script = sbatch_script(cluster, submission=submission, tasks=min(len(tasks), TASKS_A_JOB))
    lines = [f"{task.folder.name}: {shlex.join(task.words)}" for task in tasks]
    return "\n".join([script, f"# {len(tasks)} of {len(points)} tasks", *lines])


def states_of_points(
    folder: Path, points: Sequence[Point], *, must_know: bool = False
) -> list[TaskState]:
    """The state of the newest job of each point (see `read_jobs`), or that it has had none."""
    jobs = [newest_job(folder / point.name) for point in points]
    states = iter(read_jobs([job for job in jobs if job is not None], must_know=must_know))
    return ["not submitted" if job is None else next(states).state for job in jobs]


def describe(folder: Path, points: Sequence[Point]) -> str:
    """How many tasks are how, in a line."""
    counts = Counter(states_of_points(folder, points))
    return f"{len(points)} tasks: " + ", ".join(f"{n} {state}" for state, n in counts.items())


def read_sweep(folder: Path) -> list[Point]:
    """The points of a sweep's folder. Raises InputError where there is none."""
    path = folder / SWEEP_FILE
    if not os.path.lexists(path):
        raise InputError(f"{folder}: not the folder of a sweep ({SWEEP_FILE} is missing)")
    remedy = "not written by this release: delete it, and give the sweep's command again"
    kept = read_document(_Sweep, path, remedy=remedy)
    return [Point(each.words, each.values) for each in kept.tasks]


def remember(folder: Path, points: Sequence[Point]) -> None:
    """Keep the points; those of earlier calls with other values stay in the sweep."""
    every = _known(folder) | {point.name: point for point in points}
    kept = _Sweep(tasks=tuple(_Task(name=n, **vars(each)) for n, each in every.items()))
    write_text_atomically(folder / SWEEP_FILE, kept.model_dump_json(indent=1) + "\n")


def collect(folder: Path) -> tuple[list[Row], list[str]]:
    """A row a task: `task`, `state`, what it was told apart by, and its figures; and what is wrong.

    Of a pre-training these are the validation's at its best step; of an evaluation all. A task
    whose files cannot be read has none, and a line that says why.
    """
    points, troubles = read_sweep(folder), list[str]()
    rows: list[dict[str, str | float | None]] = []
    for point, state in zip(points, states_of_points(folder, points), strict=True):
        rows.append({"task": point.name, "state": state, **point.values})
        if job := newest_job(folder / point.name):
            try:
                rows[-1] |= read_invocation(job.record().command, frozen=job.profile).figures
            except InputError as error:
                troubles.append(f"{point.name}: no figures: {error}")
    columns = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key) for key in columns} for row in rows], troubles


def _missing(cluster: ClusterConfig, points: Sequence[Point], folder: Path) -> list[Invocation]:
    """Those whose jobs have neither finished nor go on, read and checked."""
    known = _known(folder)
    for point in points:
        if (twin := known.get(point.name, point)).words != point.words:
            raise InputError(
                f"{folder}: its task {point.name} is another command ({' '.join(twin.words)}): "
                "choose another --folder"
            )
    states = states_of_points(folder, points, must_know=True)
    kept = ("finished", "queued", "running")
    missing = [point for point, state in zip(points, states, strict=True) if state not in kept]
    tasks = [_task(point, folder / point.name) for point in missing]
    check(cluster, tasks)
    return tasks


def _known(folder: Path) -> dict[str, Point]:
    """The points of earlier calls, by name."""
    there = os.path.lexists(folder / SWEEP_FILE)
    return {each.name: each for each in read_sweep(folder)} if there else {}


def _task(point: Point, folder: Path) -> Invocation:
    """The command of a point, whose job lies in `folder`."""
    words = list(point.words)
    _, command, rest = find_command(words)
    a_profile = command.subject == "profile" and rest
    # What goes on by the steps of a run folder has one of its own.
    if a_profile and command.goes_on_by_of(command.kind_of(Path(rest[0]))) == "steps":
        if any(word.startswith(f"{command.folder}=") for word in words):
            raise InputError(f"{command.folder}: a sweep gives each task its own, below --folder")
        words.append(f"{command.folder}={folder}")
    return replace(read_invocation(words), folder=folder)


def _queue_arrays(
    cluster: ClusterConfig,
    tasks: Sequence[Invocation],
    points: Sequence[Point],
    submission: JobFolder,
) -> int:
    folder = submission.results
    numbers: list[str] = []
    for first in range(0, len(tasks), TASKS_A_JOB):
        if numbers:
            # One after the other: `running_at_most` is of all of them.
            earlier = {"dependency": f"afterany:{numbers[-1].partition('_')[0]}"}
            cluster = cluster.model_copy(update={"sbatch": cluster.sbatch | earlier})
        batch = tasks[first : first + TASKS_A_JOB]
        numbers += queue(cluster, batch, at=submission.path)
        remember(folder, points)
    return len(numbers)


class _JobRun:
    """A task of a sweep as one of a pool's runs."""

    def __init__(self, cluster: ClusterConfig, task: Invocation, submission: Path) -> None:
        self.name, self.folder = task.folder.name, task.folder
        self._cluster, self._task, self._submission = cluster, task, submission

    def start(self) -> None:
        queue(self._cluster, [self._task], at=self._submission)

    def status(self) -> int | None:
        job = self._job()
        return None if job.is_live else DONE if job.state == "finished" else FAILED

    def end(self) -> None:
        cancel([self.folder])

    def last_word(self) -> str:
        job = self._job()
        return f"{job.state} {job.line}".rstrip()

    def _job(self) -> Job:
        newest = newest_job(self.folder)
        assert newest is not None, self.folder
        return read_jobs([newest])[0]

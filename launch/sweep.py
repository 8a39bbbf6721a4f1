"""`sweep`: many tasks as one Slurm array, of which only what is missing is ever submitted."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from data_shards.errors import InputError
from data_shards.files.atomic import write_text_atomically
from data_shards.processes import available_cores
from distributed_pretrain.experiments.points import Point
from launch.cancel import cancel
from launch.invocation import Invocation, find_command, read_invocation
from launch.records import JOBS, JobFolder, newest_job
from launch.settings import ClusterConfig
from launch.slurm import CODE, sbatch_script, submit_tasks
from launch.snapshot import take_snapshot
from launch.states import LIVE, State, states_of
from launch.submit import (
    check,
    check_queue,
    job_folder_for,
    prepared_task,
    record_of,
    submitting,
    undisturbed,
)

SWEEP_FILE = "sweep.json"
# Slurm's default MaxArraySize is 1001.
TASKS_A_JOB = 1000
SECONDS_BETWEEN_LOOKS = 0.5


@dataclass(frozen=True)
class SweepTask:
    """One point of a sweep, with the folder that its job and results are in."""

    point: Point
    invocation: Invocation
    folder: Path


def sweep(cluster: ClusterConfig, points: Sequence[Point], folder: Path) -> list[str]:
    """Submit those points that have not finished and do not go on; their jobs' numbers.

    Raises InputError, before anything is queued, for what cannot run, and for a folder that holds
    a task of the same name with another command.
    """
    folder = folder.absolute()
    with submitting(folder):
        tasks = _missing_tasks(cluster, points, folder)
        check_queue(cluster)
        if not tasks:
            return []
        with job_folder_for(folder, "sweep") as submission:
            take_snapshot(submission.path / CODE)
            if cluster.executor == "slurm":
                return _submit_arrays(cluster, tasks, points, submission)
            remember(folder, points)
            return _run_here(cluster, tasks, submission)


def _missing_tasks(
    cluster: ClusterConfig, points: Sequence[Point], folder: Path
) -> list[SweepTask]:
    _refuse_others(folder, points)
    states = states_of_points(folder, points, must_know=True)
    tasks = [_task(point, folder / point.name) for point, state in states if state not in _KEPT]
    check(cluster, [task.invocation for task in tasks])
    return tasks


def states_of_points(
    folder: Path, points: Sequence[Point], *, must_know: bool = False
) -> list[tuple[Point, State | None]]:
    """Each point with the state of its newest job; None where it has had none.

    `must_know`: raises InputError when Slurm does not answer.
    """
    jobs = [newest_job(folder / point.name) for point in points]
    submitted = [job for job in jobs if job is not None]
    states = iter(states_of(submitted, must_know=must_know))
    return [
        (point, next(states).state if job is not None else None)
        for point, job in zip(points, jobs, strict=True)
    ]


def dry_run_sweep(cluster: ClusterConfig, points: Sequence[Point], folder: Path) -> str:
    """The script of the array that `sweep` would submit now, and the command of each task."""
    folder = folder.absolute()
    tasks = _missing_tasks(cluster, points, folder)
    submission = folder / JOBS / "NNN-sweep"
    count = min(len(tasks), TASKS_A_JOB)
    script = sbatch_script(cluster, name=folder.name, submission=submission, tasks=count)
    lines = [f"{task.point.name}: {shlex.join(task.invocation.words)}" for task in tasks]
    return "\n".join([script, f"# {len(tasks)} of {len(points)} tasks", *lines])


def describe(folder: Path, points: Sequence[Point]) -> str:
    """How many tasks are how, in a line."""
    counts = Counter(state or "not submitted" for _, state in states_of_points(folder, points))
    return f"{len(points)} tasks: " + ", ".join(f"{n} {state}" for state, n in counts.items())


def read_sweep(folder: Path) -> list[Point]:
    """The points of a sweep's folder. Raises InputError where there is none."""
    try:
        tasks = json.loads((folder / SWEEP_FILE).read_bytes())["tasks"]
        return [Point(tuple(each["words"]), each["values"]) for each in tasks]
    except FileNotFoundError as error:
        raise InputError(
            f"{folder}: not the folder of a sweep ({SWEEP_FILE} is missing)"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder / SWEEP_FILE}: not written by this release: delete it, and give the "
            "sweep's command again"
        ) from error


# A task in one of these states is let be.
_KEPT: frozenset[State | None] = frozenset({"finished", *LIVE})


def _task(point: Point, folder: Path) -> SweepTask:
    words = list(point.words)
    _, command, _ = find_command(words)
    # What goes on by the steps of a run folder has one of its own.
    if command.goes_on_by == "steps":
        if any(word.startswith(f"{command.folder}=") for word in words):
            raise InputError(f"{command.folder}: a sweep gives each task its own, below --folder")
        words.append(f"{command.folder}={folder}")
    return SweepTask(point, replace(read_invocation(words), folder=folder), folder)


def _submit_arrays(
    cluster: ClusterConfig,
    tasks: Sequence[SweepTask],
    points: Sequence[Point],
    submission: JobFolder,
) -> list[str]:
    numbers: list[str] = []
    folder = submission.results
    for first in range(0, len(tasks), TASKS_A_JOB):
        batch = tasks[first : first + TASKS_A_JOB]
        if numbers:
            # One after the other: `running_at_most` is of all of them.
            earlier = {"dependency": f"afterany:{numbers[-1].partition('_')[0]}"}
            cluster = cluster.model_copy(update={"sbatch": cluster.sbatch | earlier})
        with ExitStack() as folders, undisturbed(cluster):
            jobs = [
                folders.enter_context(job_folder_for(task.folder, task.invocation.command.name))
                for task in batch
            ]
            starts = [
                prepared_task(cluster, task.invocation, job)
                for task, job in zip(batch, jobs, strict=True)
            ]
            given = submit_tasks(cluster, starts, name=folder.name, submission=submission.path)
            remember(folder, points)
            for task, job, number in zip(batch, jobs, given, strict=True):
                record = record_of(cluster, task.invocation, number, submission=submission.path)
                job.write_record(record)
        numbers += given
    return numbers


def _run_here(
    cluster: ClusterConfig, tasks: Sequence[SweepTask], submission: JobFolder
) -> list[str]:
    """All tasks on this machine, as many at a time as it has cores for; returns when they ended."""
    cores = available_cores()
    at_once = min(cluster.running_at_most, max(1, cores // (cluster.ranks * cluster.cpus_per_rank)))
    numbers: list[str] = []
    running: list[JobFolder] = []
    try:
        for task in tasks:
            running = _wait_for_room(running, at_once - 1)
            with (
                job_folder_for(task.folder, task.invocation.command.name) as job,
                undisturbed(cluster),
            ):
                start = prepared_task(cluster, task.invocation, job)
                [number] = submit_tasks(
                    cluster, [start], name=task.point.name, submission=submission.path
                )
                record = record_of(cluster, task.invocation, number, submission=submission.path)
                job.write_record(record)
            numbers.append(number)
            running.append(job)
            print(f"{task.point.name}: {len(numbers)} of {len(tasks)} started", file=sys.stderr)
        _wait_for_room(running, 0)
    except KeyboardInterrupt:
        cancel([job.results for job in running])
        print("interrupted: waiting for what ran to save", file=sys.stderr, flush=True)
        _wait_for_room(running, 0)
        print("the same command goes on", file=sys.stderr)
        raise
    return numbers


def _wait_for_room(running: list[JobFolder], room_for: int) -> list[JobFolder]:
    while True:
        states = states_of(running)
        running = [job for job, each in zip(running, states, strict=True) if each.state in LIVE]
        if len(running) <= room_for:
            return running
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _refuse_others(folder: Path, points: Sequence[Point]) -> None:
    if not (folder / SWEEP_FILE).exists():
        return
    earlier = {point.name: point for point in read_sweep(folder)}
    for point in points:
        twin = earlier.get(point.name)
        if twin is not None and twin.words != point.words:
            raise InputError(
                f"{folder}: its task {point.name} is another command ({' '.join(twin.words)}): "
                "choose another --folder"
            )


def remember(folder: Path, points: Sequence[Point]) -> None:
    """Keep the points; those of earlier calls with other values stay in the sweep."""
    folder.mkdir(parents=True, exist_ok=True)
    earlier = read_sweep(folder) if (folder / SWEEP_FILE).exists() else []
    every = {point.name: point for point in [*earlier, *points]}
    tasks = [{"name": n, "words": p.words, "values": p.values} for n, p in every.items()]
    write_text_atomically(folder / SWEEP_FILE, json.dumps({"tasks": tasks}, indent=1) + "\n")

"""Slurm's own commands, asked in the few ways the launcher needs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from data_shards.errors import InputError
from launch.records import State

# Slurm answers within its own message timeout (10 s) or not at all.
PATIENCE_SECONDS = 60.0
_RUNNING_WORDS = {"RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "STOPPED"}


class Answer(NamedTuple):
    """What Slurm says of a job; `line` is why."""

    state: State
    nodes: str = ""
    line: str = ""


def refuse_unknown_partition(partition: str) -> None:
    """Raise InputError, naming those there are, unless `sinfo` knows the partition."""
    done = _run("sinfo", "--noheader", "--format=%R")
    if done.returncode:
        raise InputError(f"sinfo: {done.stderr.strip()}: is Slurm running?")
    known = sorted({line.rstrip("*") for line in _lines(done.stdout)})
    missing = [each for each in partition.split(",") if each not in known]
    if missing:
        raise InputError(
            f"partition={missing[0]}: sinfo knows no such partition: use {', '.join(known)}"
        )


def queued_jobs(job_ids: Sequence[str]) -> dict[str, Answer]:
    """Those of the jobs that wait or run, by number (array tasks as `12_3`)."""
    if not job_ids:
        return {}
    found: dict[str, Answer] = {}
    form = "--format=%i|%T|%N|%r"
    done = _run("squeue", "--noheader", "--array", f"--jobs={_whole(job_ids)}", form)
    if done.returncode and "Invalid job id" not in done.stderr:
        raise InputError(f"squeue: {done.stderr.strip()}: is this a machine of that cluster?")
    for line in _lines(done.stdout):
        job_id, word, nodes, reason = line.split("|", 3)
        waits = Answer("queued", nodes, "" if reason == "None" else reason)
        found[job_id] = Answer("running", nodes) if word in _RUNNING_WORDS else waits
    return found


def ended_jobs(job_ids: Sequence[str]) -> dict[str, Answer]:
    """Those of the jobs that the accounting remembers; nothing where there is no accounting."""
    found: dict[str, Answer] = {}
    if not job_ids or shutil.which("sacct") is None:
        return found
    form = ["--parsable2", "--noheader", "--format=JobID,State,NodeList"]
    done = _run("sacct", "--allocations", f"--jobs={_whole(job_ids)}", *form)
    for line in _lines(done.stdout) if not done.returncode else ():
        job_id, word, nodes = line.split("|")
        # "CANCELLED by 1000"
        word = word.split()[0]
        failed = Answer("failed", nodes, f"Slurm says {word}")
        found[job_id] = Answer("cancelled", nodes) if word == "CANCELLED" else failed
    return found


def cancel_jobs(job_ids: Sequence[str]) -> None:
    """End jobs, waiting or running: their ranks get SIGTERM, and KillWait to save in."""
    done = _run("scancel", *job_ids)
    if done.returncode:
        raise InputError(done.stderr.strip() or "scancel failed")


def _whole(job_ids: Sequence[str]) -> str:
    """The jobs, of array tasks their arrays, as Slurm takes them."""
    return ",".join(sorted({each.partition("_")[0] for each in job_ids}))


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
        )
    except FileNotFoundError as error:
        raise InputError(
            f"{command[0]}: not found: this is no machine of a Slurm cluster (executor=local runs "
            "jobs here)"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{command[0]}: no answer in {PATIENCE_SECONDS:.0f} s") from error


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]

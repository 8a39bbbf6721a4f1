"""Slurm's own commands, asked in the few ways the launcher needs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from data_shards.errors import InputError

# Slurm answers within its own message timeout (10 s) or not at all.
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class SchedulerState:
    """A job as Slurm sees it now. `word` is Slurm's, such as PENDING or NODE_FAIL."""

    word: str
    nodes: str = ""
    reason: str = ""


def refuse_unknown_partition(partition: str) -> None:
    """Raise InputError, naming those there are, unless `sinfo` knows the partition."""
    known = sorted({line.rstrip("*") for line in _ask("sinfo", "--noheader", "--format=%R")})
    missing = [each for each in partition.split(",") if each not in known]
    if missing:
        raise InputError(
            f"partition={missing[0]}: sinfo knows no such partition: use {', '.join(known)}"
        )


def queued_states(job_ids: Sequence[str]) -> dict[str, SchedulerState]:
    """Those of the jobs that wait or run, by number (array tasks as `12_3`)."""
    wanted = sorted({each.partition("_")[0] for each in job_ids})
    if not wanted:
        return {}
    states = {}
    form = "--format=%i|%T|%N|%r"
    done = _run("squeue", "--noheader", "--array", f"--jobs={','.join(wanted)}", form)
    if done.returncode and "Invalid job id" not in done.stderr:
        raise InputError(f"squeue: {done.stderr.strip()}: is this a machine of that cluster?")
    for line in _lines(done.stdout):
        job_id, word, nodes, reason = line.split("|", 3)
        states[job_id] = SchedulerState(word, nodes, "" if reason == "None" else reason)
    return {each: states[each] for each in job_ids if each in states}


def ended_states(job_ids: Sequence[str]) -> dict[str, SchedulerState]:
    """Those of the jobs that the accounting remembers; nothing where there is no accounting."""
    wanted = sorted({each.partition("_")[0] for each in job_ids})
    if not wanted or shutil.which("sacct") is None:
        return {}
    form = ["--parsable2", "--noheader", "--format=JobID,State,NodeList"]
    done = _run("sacct", "--allocations", f"--jobs={','.join(wanted)}", *form)
    if done.returncode:
        return {}
    states = {}
    for line in _lines(done.stdout):
        job_id, word, nodes = line.split("|")
        # "CANCELLED by 1000"
        states[job_id] = SchedulerState(word.split()[0], nodes)
    return {each: states[each] for each in job_ids if each in states}


def cancel_jobs(job_ids: Sequence[str]) -> None:
    """End jobs, waiting or running: their ranks get SIGTERM, and KillWait to save in."""
    done = _run("scancel", *job_ids)
    if done.returncode:
        raise InputError(done.stderr.strip() or "scancel failed")


def _ask(*command: str) -> list[str]:
    done = _run(*command)
    if done.returncode:
        raise InputError(f"{command[0]}: {done.stderr.strip()}: is Slurm running?")
    return _lines(done.stdout)


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

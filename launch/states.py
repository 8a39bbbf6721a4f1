"""How jobs are: the scheduler's word, and where it has none, what the ranks wrote down."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from launch.records import Event, EventName, JobFolder, JobRecord
from launch.scheduler import SchedulerState, ended_states, queued_states

State = Literal["queued", "running", "finished", "failed", "cancelled", "unknown"]
LIVE: frozenset[State] = frozenset({"queued", "running"})
_RUNNING_WORDS = {"RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "STOPPED"}
_LAST_WORDS: dict[EventName, State] = {
    "finished": "finished",
    "failed": "failed",
    "cancelled": "cancelled",
}


@dataclass(frozen=True)
class JobState:
    """One job now. `line` is the last error, or why it waits; `restarts` were no submissions."""

    state: State
    nodes: str = ""
    restarts: int = 0
    line: str = ""


def states_of(jobs: Sequence[JobFolder]) -> list[JobState]:
    """The states of jobs that have a record, with one question to the scheduler for all."""
    records = [job.record() for job in jobs]
    events = [job.events() for job in jobs]
    said = [_said(each) for each in events]
    on_slurm = [r.job_id for r in records if r.executor == "slurm"]
    live = queued_states(on_slurm) if on_slurm else {}
    open_jobs = [
        record.job_id
        for record, word in zip(records, said, strict=True)
        if record.executor == "slurm" and record.job_id not in live and word is None
    ]
    ended = ended_states(open_jobs)
    return [
        _state(record, each, word, live.get(record.job_id), ended.get(record.job_id))
        for record, each, word in zip(records, events, said, strict=True)
    ]


def _said(events: Sequence[Event]) -> Event | None:
    """The event that ended the job, if one did; a failure counts before its echo.

    A job that was cancelled stays so, unless its last step was its last anyway.
    """
    starts = [number for number, each in enumerate(events) if each.event == "started"]
    since = events[starts[-1] :] if starts else events
    finished = [each for each in since if each.event == "finished"]
    cancelled = [each for each in events if each.event == "cancelled"]
    failed = [each for each in since if each.event == "failed"]
    return next(iter([*finished, *cancelled, *failed]), None)


def _state(
    record: JobRecord,
    events: Sequence[Event],
    said: Event | None,
    live: SchedulerState | None,
    ended: SchedulerState | None,
) -> JobState:
    restarts = max(0, sum(each.event == "started" for each in events) - 1)
    hosts = next((each.host for each in reversed(events) if each.event == "started"), "")
    if said is not None and said.event == "cancelled" and _goes_on(record, live):
        # Whoever started it again meanwhile would write into the same folder.
        return JobState("running", hosts, restarts, "cancelled: it saves and ends")
    if live is not None and (said is None or live.word == "PENDING"):
        running = live.word in _RUNNING_WORDS
        reason = "" if running or live.reason == "None" else live.reason
        return JobState("running" if running else "queued", live.nodes, restarts, reason)
    if said is not None:
        return JobState(_LAST_WORDS[said.event], hosts, restarts, _line_of(said))
    if record.executor != "slurm":
        if is_local_job_alive(record.job_id):
            return JobState("running" if events else "queued", hosts, restarts)
        return JobState("unknown", hosts, restarts, "its processes are gone without a word")
    if ended is None:
        return JobState("unknown", hosts, restarts, "Slurm no longer knows it")
    cancelled = ended.word == "CANCELLED"
    return JobState(
        "cancelled" if cancelled else "failed",
        ended.nodes,
        restarts,
        "" if cancelled else f"Slurm says {ended.word}",
    )


def _goes_on(record: JobRecord, live: SchedulerState | None) -> bool:
    if record.executor == "local":
        return is_local_job_alive(record.job_id)
    return live is not None and live.word in _RUNNING_WORDS


def _line_of(event: Event) -> str:
    return f"rank {event.rank}: {event.line}" if event.event == "failed" else ""


def is_local_job_alive(job_id: str) -> bool:
    """Whether the process that looks after a local job is there (numbers are used again)."""
    # -ww: else COLUMNS cuts the line.
    done = subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", job_id], capture_output=True, text=True, check=False
    )
    return "submitit.local._local" in done.stdout

"""How jobs are: the scheduler's word, and where it has none, what the ranks wrote down."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from data_shards.errors import InputError
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


def states_of(jobs: Sequence[JobFolder], *, must_know: bool = False) -> list[JobState]:
    """The states of jobs that have a record, with one question to the scheduler for all.

    When Slurm does not answer, what the ranks wrote down has to do; with `must_know`, InputError.
    """
    records = [job.record() for job in jobs]
    events = [job.events() for job in jobs]
    said = [_said(each) for each in events]
    on_slurm = [r.job_id for r in records if r.executor == "slurm"]
    silence = ""
    live: dict[str, SchedulerState] = {}
    try:
        live = queued_states(on_slurm)
    except InputError as error:
        if must_know:
            raise
        silence = str(error)
    open_jobs = [
        record.job_id
        for record, word in zip(records, said, strict=True)
        if record.executor == "slurm" and record.job_id not in live and word is None
    ]
    ended = {} if silence else ended_states(open_jobs)
    return [
        _state(record, each, word, live.get(record.job_id), ended.get(record.job_id), silence)
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
    silence: str,
) -> JobState:
    restarts = max(0, sum(each.event == "started" for each in events) - 1)
    hosts = next((each.host for each in reversed(events) if each.event == "started"), "")
    if live is None and record.executor == "local" and is_local_job_alive(record):
        live = SchedulerState("RUNNING" if events else "PENDING", hosts)
    if live is not None and live.word in _RUNNING_WORDS:
        # Whoever started it again while its ranks end would write into the same folder.
        ending = f"it ends: {said.event} {_line_of(said)}".rstrip() if said is not None else ""
        return JobState("running", live.nodes, restarts, ending)
    if live is not None:
        return JobState("queued", live.nodes, restarts, live.reason)
    if said is not None:
        return JobState(_LAST_WORDS[said.event], hosts, restarts, _line_of(said))
    if record.executor != "slurm":
        elsewhere = record.host != socket.gethostname()
        why = f"ask on {record.host}, where it runs" if elsewhere else "it ended without a word"
        return JobState("unknown", hosts, restarts, why)
    if ended is None:
        return JobState("unknown", hosts, restarts, silence or "Slurm no longer knows it")
    if ended.word == "CANCELLED":
        return JobState("cancelled", ended.nodes, restarts)
    why = f"Slurm says {ended.word}"
    if events and events[-1].event == "requeued":
        why += ": it saved, but was not requeued; submit it again"
    return JobState("failed", ended.nodes, restarts, why)


def _line_of(event: Event) -> str:
    return f"rank {event.rank}: {event.line}" if event.event == "failed" else ""


def is_local_job_alive(record: JobRecord) -> bool:
    """Whether the process that looks after a local job is there (numbers are used again)."""
    if record.host != socket.gethostname():
        return False
    done = subprocess.run(
        # Not cut at the width of a terminal.
        ["ps", "-ww", "-o", "command=", "-p", record.job_id],
        capture_output=True,
        text=True,
        check=False,
    )
    return "submitit.local._local" in done.stdout

"""What a job leaves beside its results, so that any shell can tell how it is: plain JSON.

<folder>/jobs/001-pretrain/record.json    what was submitted, and the scheduler's number for it
                           events-*.jsonl started, requeued, finished, failed, cancelled
                           code/          the packages as they were when it was submitted
                           profile.yaml   the resolved profile that every start reads
                           *_log.out      what each rank said, with the scheduler's number

All of it is for the user alone (0700): the scheduler's start files are pickles, and whoever may
write one runs code as the user.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

from pydantic import ValidationError

from data_shards.errors import InputError
from data_shards.files.atomic import write_text_atomically
from data_shards.files.json_lines import JsonLines
from data_shards.profiles import Config
from launch.settings import ExecutorName

JOBS = "jobs"
# What keeps an event one short write.
LONGEST_LINE = 1000
_NUMBERED = re.compile(r"(\d{3,})-[a-z_]+")
EventName: TypeAlias = Literal["started", "requeued", "finished", "failed", "cancelled"]
State: TypeAlias = Literal["queued", "running", "finished", "failed", "cancelled", "unknown"]
ConfigT = TypeVar("ConfigT", bound=Config)
_REMEDY = "of this release: delete its folder"


class JobRecord(Config):
    """One submission. `submission` is the folder with its code, start files and logs."""

    executor: ExecutorName
    job_id: str
    command: tuple[str, ...]
    submission: Path
    nodes: int
    ranks: int
    requeues: int
    submitted: str
    host: str
    revision: str | None


# Stands for what is not known of a job.
UNREADABLE = JobRecord(
    executor="local",
    job_id="?",
    command=(),
    submission=Path(),
    nodes=0,
    ranks=0,
    requeues=0,
    submitted="",
    host="",
    revision=None,
)


class Event(Config):
    """Something that befell a job, as the rank that saw it wrote down.

    `restart` is Slurm's count of the job's starts before this one, 0 elsewhere: hosts' clocks
    differ, so `time` alone orders the events of one host only.
    """

    event: EventName
    time: str
    host: str
    rank: int = 0
    restart: int = 0
    step: int | None = None
    line: str = ""


class JobFolder:
    """The folder of one submission of one command."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results = path.parent.parent  # the folder that the submission is about
        self.record_file = path / "record.json"  # written once the scheduler has given a number
        self.profile = path / "profile.yaml"  # the resolved one
        self.event_lines = JsonLines(path / "events.jsonl")  # of each rank, and who cancels

    @property
    def submitted(self) -> float:
        """When the scheduler took it, by the clock of the file system; 0 without a record."""
        return self.record_file.stat().st_mtime if self.record_file.exists() else 0.0

    def write_record(self, record: JobRecord) -> None:
        """Keep `record`."""
        write_text_atomically(self.record_file, record.model_dump_json(indent=1) + "\n")

    def record(self) -> JobRecord:
        """What was submitted. Raises InputError where it is malformed."""
        return read_document(JobRecord, self.record_file, remedy=f"not a job's record {_REMEDY}")

    def add(
        self,
        event: EventName,
        *,
        rank: int = 0,
        restart: int = 0,
        step: int | None = None,
        line: str = "",
    ) -> None:
        """Append an event to those of its rank, or of the user who cancels."""
        entry = Event(
            event=event,
            time=datetime.now(UTC).isoformat(timespec="microseconds"),
            host=socket.gethostname(),
            rank=rank,
            restart=restart,
            step=step,
            line=line[:LONGEST_LINE],
        )
        writer = "user" if event == "cancelled" else f"rank{rank}"
        self.event_lines.append(entry.model_dump(mode="json"), writer=writer)

    def events(self) -> list[Event]:
        """All events, oldest first. Raises InputError where one is malformed."""
        path = self.event_lines.path
        try:
            found = [Event.model_validate(line) for line in self.event_lines.read()]
        except (ValidationError, InputError) as error:
            raise InputError(f"{path}: not a job's events {_REMEDY}") from error
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}: not a job's events {_REMEDY}") from error
        return sorted(found, key=lambda each: (each.restart, each.time))

    def trouble(self) -> str | None:
        """What is wrong with its record or its events; None where both can be read."""
        try:
            self.record()
            self.events()
        except InputError as error:
            return str(error)
        return None


def read_document(kind: type[ConfigT], path: Path, *, remedy: str) -> ConfigT:
    """The JSON document in a file. Raises InputError, which ends in `remedy`, for any other."""
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: not a file: {remedy}")
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: {remedy}") from error
    except ValidationError as error:
        raise InputError(f"{path}: {remedy}") from error


@dataclass(frozen=True)
class Job:
    """One job: what is written down of it, and how it is.

    `line` is the last error, or why it waits. `may_live`: only another machine can tell. One whose
    record or events cannot be read has those of `UNREADABLE`, and is unknown.
    """

    folder: JobFolder
    record: JobRecord
    events: Sequence[Event]
    state: State = "unknown"
    nodes: str = ""
    line: str = ""
    may_live: bool = False

    @property
    def is_live(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ("queued", "running")

    @property
    def restarts(self) -> int:
        """Its starts that were no submissions."""
        return max(0, len(starts_of(self.events)) - 1)

    @property
    def last_word(self) -> Event | None:
        """The event that ended the job, if one did; a failure counts before its echo.

        A job that was cancelled stays so, unless its last step was its last anyway.
        """
        since = since_start(self.events)
        by_weight = (("finished", since), ("cancelled", self.events), ("failed", since))
        found = (each for name, those in by_weight for each in those if each.event == name)
        return next(found, None)


def starts_of(events: Sequence[Event]) -> list[Event]:
    """Its starts, oldest first."""
    return [each for each in events if each.event == "started"]


def since_start(events: Sequence[Event]) -> Sequence[Event]:
    """The events of its newest start; all where it has not started.

    Those of other hosts are told by the restart that they are of, since their clocks may differ.
    """
    first = max((n for n, each in enumerate(events) if each.event == "started"), default=None)
    if first is None:
        return events
    start = events[first]
    return [
        each
        for n, each in enumerate(events)
        if each.restart == start.restart and (n >= first or each.host != start.host)
    ]


def told_starts(events: Sequence[Event]) -> list[Event]:
    """The starts that ended because the job was told to, and the newest; oldest first.

    Others were cut short by Slurm itself: a node died, or another job had to have it.
    """
    found: list[Event] = []
    newest: Event | None = None
    for each in events:
        if each.event == "started":
            newest = each
        elif each.event == "requeued" and newest is not None:
            found.append(newest)
            newest = None
    return [*found, newest] if newest is not None else found


def new_job_folder(results: Path, verb: str) -> JobFolder:
    """The next numbered folder for a submission about `results`, for the user alone.

    Raises InputError when they would lie in somebody else's folder.
    """
    jobs = results / JOBS
    jobs.mkdir(parents=True, exist_ok=True, mode=0o700)
    if jobs.stat().st_uid != os.getuid():
        raise InputError(f"{jobs}: belongs to another user: choose another folder for the results")
    jobs.chmod(0o700)
    earlier = jobs_of(results)
    number = int(earlier[-1].path.name.partition("-")[0]) + 1 if earlier else 1
    path = jobs / f"{number:03}-{verb}"
    path.mkdir(mode=0o700)
    return JobFolder(path)


def newest_job(results: Path) -> JobFolder | None:
    """The newest submission about `results` that the scheduler took; None if there is none."""
    return next((job for job in reversed(jobs_of(results)) if job.record_file.exists()), None)


def jobs_of(results: Path) -> list[JobFolder]:
    """All submissions about `results`, oldest first."""
    found = (results / JOBS).glob("*")
    named = [(int(m[1]), each) for each in found if (m := _NUMBERED.fullmatch(each.name))]
    return [JobFolder(path) for _, path in sorted(named)]

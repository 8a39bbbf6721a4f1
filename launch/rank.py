"""One rank of a job: meets the others, starts the command, passes signals on, says how it ended.

The command is a process of its own, so that whatever ends it (a segmentation fault, the kernel out
of memory) is seen and written down, and signals never meet submitit's handlers: those save inside
rank 0's handler alone, while what saves here is the trainer, on all ranks at a step boundary.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn, Self

from data_shards.command_line import BAD_INPUT, FAILED, GOES_ON, INTERRUPTED, GoesOnBy
from data_shards.errors import InputError
from data_shards.files.atomic import write_text_atomically
from data_shards.processes import ENDING_SIGNALS, ending_signals_go_to
from distributed_pretrain.run_folder.folder import RunFolder
from launch.records import EventName, JobFolder, since_start, told_starts

# Ended by one of these, a command was told to end.
_TOLD_TO_END = {GOES_ON, INTERRUPTED, *(-number for number in ENDING_SIGNALS)}
STARTS_WITHOUT_PROGRESS = 2
PATIENCE_SECONDS = 600.0
SECONDS_BETWEEN_LOOKS = 0.1
_NOT_OURS = ("submitit ", "srun: ", "slurmstepd: ")
_LOG_END_BYTES = 20_000
# What torch's watchdog of NCCL says before it aborts a process whose peers are gone or hang. Of a
# fault of this process ("CUDA error: ...") it says another thing after the same words.
_PEER_IS_GONE = re.compile(
    r"watchdog thread terminated with exception:"
    r"(?:(?!CUDA error).)*?(?:collective operation timeout|remote (?:process|peer))",
    re.DOTALL,
)


@dataclass(frozen=True)
class Place:
    """Where this process stands in its job.

    `granted` are the restarts after which the job put itself into the queue again; None: all that
    it wished to.
    """

    job_id: str
    rank: int
    ranks: int
    local_rank: int
    local_ranks: int
    restart: int
    log: Path
    granted: frozenset[int] | None = None


@dataclass(frozen=True)
class RankTask:
    """What every rank of a job does; `goes_on_by` is what a second start finds (see `Command`)."""

    job: Path
    words: tuple[str, ...]
    goes_on_by: GoesOnBy
    requeues: int
    threads: int
    master_port: int | None

    def run(self, place: Place) -> bool:
        """Run the command to its end; True when the job is to be requeued (on rank 0 alone).

        Leaves by SystemExit with the command's status where the job has failed.
        """
        # To the very end: submitit's own handler would requeue a job that has finished.
        with _Told() as told:
            return _Rank(self, place, JobFolder(self.job), told).run()


@dataclass(frozen=True)
class _Rank:
    task: RankTask
    place: Place
    job: JobFolder
    told: _Told

    def run(self) -> bool:
        try:
            return self._run()
        except InputError as error:
            self._fail(str(error), status=BAD_INPUT)

    def _run(self) -> bool:
        status = self._command_status()
        if status == 0:
            if self.place.rank == 0:
                self._add("finished")
            return False
        if status == -signal.SIGABRT and _PEER_IS_GONE.search(_end_of(self.place.log)):
            # As where our own liveness sees it first: whoever is at fault writes that down itself.
            line = "NCCL's watchdog ended it: another rank is gone, or hangs"
            print(f"rank {self.place.rank}: {line}", file=sys.stderr, flush=True)
        elif status not in _TOLD_TO_END:
            self._fail(self._how_it_ended(status), status=status if status > 0 else 128 - status)
        return self.place.rank == 0 and self._may_go_on()

    def _add(self, event: EventName, *, step: int | None = None, line: str = "") -> None:
        rank, restart = self.place.rank, self.place.restart
        self.job.add(event, rank=rank, restart=restart, step=step, line=line)

    def _command_status(self) -> int:
        place, told = self.place, self.told
        if place.rank == 0:
            self._add("started", step=self._saved_step())
        words = [sys.executable, "-P", "-m", *self.task.words]
        environment = os.environ | {"OMP_NUM_THREADS": str(self.task.threads)}
        if place.ranks == 1:
            return told.run(words, environment)
        meeting = meeting_place(
            # What a killed start left would send the others to a port that is gone.
            self.job.path / f"meeting-{place.job_id}-{place.restart}.json",
            rank=place.rank,
            master_port=self.task.master_port,
            told=lambda: told.number is not None,
        )
        try:
            with meeting as (host, port):
                return told.run(words, environment | rank_variables(place, host, port))
        except InterruptedError:
            return -(told.number or signal.SIGTERM)

    def _may_go_on(self) -> bool:
        events = self.job.events()
        if any(each.event == "failed" for each in since_start(events)):
            # Another rank's own failure ended this one.
            sys.exit(FAILED)
        # Also from before the start: the signal may have come on its first line.
        if any(each.event == "cancelled" for each in events):
            return False
        step = self._saved_step()
        # What Slurm itself starts again (a node died, another job had to have it) counts nowhere.
        granted = self.place.granted
        if granted is not None:
            events = [e for e in events if e.event != "requeued" or e.restart in granted]
        if sum(each.event == "requeued" for each in events) >= self.task.requeues:
            self._fail(
                f"told to end, and was requeued {self.task.requeues} times already: submit it "
                "again to go on, or raise requeues",
                status=GOES_ON,
            )
        before = [each.step for each in told_starts(events)[-STARTS_WITHOUT_PROGRESS:]]
        if step is not None and len(before) == STARTS_WITHOUT_PROGRESS and set(before) == {step}:
            self._fail(
                f"ended {STARTS_WITHOUT_PROGRESS} times without a step beyond {step}: not "
                "requeued; raise time_minutes, or look at the log",
                status=GOES_ON,
            )
        self._add("requeued", step=step)
        return True

    def _saved_step(self) -> int | None:
        """The step that a start goes on from; None where it goes on by other things than steps."""
        if self.task.goes_on_by == "steps":
            return RunFolder(self.job.results).saved_step()
        # What goes on by nothing begins anew each time.
        return None if self.task.goes_on_by == "tasks" else 0

    def _how_it_ended(self, status: int) -> str:
        if status < 0:
            name = signal.Signals(-status).name
            return f"killed by {name}" + (" (no RAM left?)" if name == "SIGKILL" else "")
        return last_line(self.place.log) or f"exit status {status}"

    def _fail(self, line: str, *, status: int) -> NoReturn:
        self._add("failed", line=line)
        print(f"rank {self.place.rank}: {line}", file=sys.stderr, flush=True)
        sys.exit(status)


class _Told(ExitStack):
    """Within it, signals are passed on to the command; an early one keeps it from starting."""

    number: int | None = None
    _process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.enter_context(ending_signals_go_to(self._pass_on))
        return super().__enter__()

    def _pass_on(self, number: int, _: FrameType | None = None) -> None:
        self.number = number
        if self._process is not None:
            self._process.send_signal(number)

    def run(self, words: Sequence[str], environment: Mapping[str, str]) -> int:
        """The status of the command, negative for the signal that ended it."""
        if self.number is None:
            self._process = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL)
        if self._process is None:
            return -(self.number or signal.SIGTERM)
        if self.number is not None:  # it came while the process was started
            self._process.send_signal(self.number)
        return self._process.wait()


def rank_variables(place: Place, host: str, port: int | str) -> dict[str, str]:
    """What torch.distributed and Accelerate read to find the other ranks."""
    return {
        "RANK": str(place.rank),
        "LOCAL_RANK": str(place.local_rank),
        "WORLD_SIZE": str(place.ranks),
        "LOCAL_WORLD_SIZE": str(place.local_ranks),
        "MASTER_ADDR": host,
        "MASTER_PORT": str(port),
    }


def last_line(log: Path) -> str:
    """The last thing that a log says, without what the scheduler and submitit add to it."""
    lines = _end_of(log).splitlines()
    ours = [line.strip() for line in lines if not line.startswith(_NOT_OURS)]
    return next((line for line in reversed(ours) if line), "")


def _end_of(log: Path) -> str:
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_END_BYTES))
        return file.read().decode(errors="replace")


@contextmanager
def meeting_place(
    path: Path, *, rank: int, master_port: int | None, told: Callable[[], bool] = lambda: False
) -> Iterator[tuple[str, int]]:
    """Host and port of rank 0, the same on every rank that gives the same `path`.

    A port computed from a job's number may be in use. Rank 0 takes one that the kernel says is
    free, and stays bound to it (without listening) until the job ends: nobody else is given it,
    and torch's store, which sets SO_REUSEADDR as this socket does, may listen on it.

    `master_port` is taken as it is; None lets the kernel choose. Raises InputError when that port
    is taken, and on the other ranks when rank 0 does not come; InterruptedError when `told` says
    so while they wait.
    """
    if rank != 0:
        yield _read_when_there(path, told)
        return
    with _bound(master_port or 0) as holder:
        place = (socket.gethostname(), int(holder.getsockname()[1]))
        write_text_atomically(path, json.dumps(place))
        try:
            yield place
        finally:
            path.unlink(missing_ok=True)


def _bound(port: int) -> socket.socket:
    holder = socket.socket(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET)
    if holder.family == socket.AF_INET6:
        holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        holder.bind(("", port))
    except OSError as error:
        holder.close()
        raise InputError(
            f"master_port={port}: not free on {socket.gethostname()} ({error.strerror}): choose "
            "another, or leave it out"
        ) from error
    return holder


def _read_when_there(path: Path, told: Callable[[], bool]) -> tuple[str, int]:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            host, port = json.loads(path.read_text())
        except FileNotFoundError:
            if told():
                raise InterruptedError from None
            time.sleep(SECONDS_BETWEEN_LOOKS)
            continue
        return str(host), int(port)
    raise InputError(
        f"{path}: rank 0 said no address in {PATIENCE_SECONDS:.0f} s: look at its log, and whether "
        "all nodes see this folder"
    )

"""Daemons in the foreground that end with the process that started them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin", "/sbin"])
_POLL_SECONDS = 0.05


def program(name: str) -> str | None:
    """The path of a program, also where the PATH of a user leaves out sbin; None if absent."""
    return shutil.which(name, path=_SEARCH_PATH)


def wait_until(
    happened: Callable[[], bool], what: str, timeout_seconds: float, poll_seconds: float = 0.05
) -> None:
    """Return once `happened()`; TimeoutError says `what` did not."""
    end = time.monotonic() + timeout_seconds
    while not happened():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {timeout_seconds:.0f} s")
        time.sleep(poll_seconds)


class Daemon:
    """One program in the foreground, with a log; gets SIGKILL when our process dies."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str]
    ) -> None:
        self.name = name
        self._log = log
        executable = program(command[0])
        assert executable is not None, f"{command[0]} is not installed"
        folder = log.parent / name
        folder.mkdir(exist_ok=True)
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", executable, *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=dict(environment),
                # A Ctrl-C at the tests is ours to pass on, in the right order.
                start_new_session=True,
                cwd=folder,
            )

    def log_end(self) -> str:
        """The last lines of its log."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])

    def wait_until_ready(self, is_ready: Callable[[], bool], timeout_seconds: float = 60) -> None:
        """Return once `is_ready()`; an error with the log's end if it died or took too long."""

        def answered() -> bool:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended at its start:\n{self.log_end()}")
            return is_ready()

        try:
            wait_until(answered, f"{self.name} is ready", timeout_seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.log_end()}") from None

    def stop(self, timeout_seconds: float = 10) -> None:
        """SIGTERM, and SIGKILL for what does not listen."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout_seconds)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()


def kill_all(find: Callable[[], Sequence[psutil.Process]]) -> None:
    """SIGKILL what `find` tells, until it tells none: a parent may start one more in between."""
    while processes := find():
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(processes, timeout=10)


def living_processes(matches: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    """The processes that match; not ours, no zombies, none that ends or is hidden meanwhile."""
    found = []
    for process in psutil.process_iter():
        try:
            living = process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE
            if living and matches(process):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def descendants(process: psutil.Process) -> list[psutil.Process]:
    """The living children of a process, and theirs."""
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def listens(port: int) -> bool:
    """Whether something on this machine answers there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports

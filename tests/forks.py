"""Processes that begin with the product imported: forks of a server that did so once.

A new interpreter takes seconds of a core for that, a fork some milliseconds.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.paths import ROOT

HANGING_SECONDS = 150.0
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "data_shards.building.build",
        "distributed_pretrain.__main__",
        "distributed_pretrain.evaluation.evaluate",
        "distributed_pretrain.pretrain.build",
        "transformers.models.bert.modeling_bert",
    ]
)


@dataclass(frozen=True)
class Started:
    """A process under way; what it says on stdout and stderr goes to two files."""

    process: BaseProcess | subprocess.Popen[bytes]
    output: Path
    errors: Path

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    @property
    def printed(self) -> str:
        """Its stdout."""
        return self.output.read_text()

    @property
    def said(self) -> str:
        """Its stderr."""
        return self.errors.read_text()

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        if isinstance(self.process, subprocess.Popen):
            return self.process.poll()
        return self.process.exitcode

    def wait(self, timeout_seconds: float = 240) -> int | None:
        """The exit status; None where it still runs by then."""
        if not isinstance(self.process, subprocess.Popen):
            self.process.join(timeout_seconds)
            return self.process.exitcode
        deadline = time.monotonic() + timeout_seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.process.poll()

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it with SIGKILL, if it has not ended."""
        self.process.kill()
        self.wait()


def fork(
    function: Callable[..., None],
    *arguments: Any,
    files: Path,
    environment: Mapping[str, str] | None = None,
) -> Started:
    """`function(*arguments)` in the checkout, with one thread of torch.

    `files` and an ending are the files of its stdout and stderr. `environment` adds to this
    process's own.
    """
    output, errors = files.with_suffix(".out"), files.with_suffix(".err")
    files.parent.mkdir(parents=True, exist_ok=True)
    for path in (output, errors):
        path.touch()
    process = _SERVER.Process(
        target=_run,
        args=(output, errors, {**os.environ, **(environment or {})}, function, arguments),
    )
    process.start()
    return Started(process, output, errors)


def _run(
    output: Path,
    errors: Path,
    environment: Mapping[str, str],
    function: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    for path, descriptor in ((output, 1), (errors, 2)):
        with path.open("w") as file:
            os.dup2(file.fileno(), descriptor)
    # One that hangs says where, even with the interpreter's lock held.
    faulthandler.dump_traceback_later(HANGING_SECONDS, file=2)
    import torch

    torch.set_num_threads(1)
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    function(*arguments)

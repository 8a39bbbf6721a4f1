"""Real processes on this machine that form one gloo group, started in milliseconds.

A fork server imports the product once; each rank is a fork of it. Ranks are told who they are by
the variables a launcher sets.
"""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    ["distributed_pretrain.pretrain.build", "distributed_pretrain.__main__"]
)


@dataclass
class Ranks:
    """Running ranks; what they say on stderr goes to `<folder>/rank<r>.err`."""

    processes: list[BaseProcess]
    folder: Path

    def said(self, rank: int) -> str:
        """The stderr of one rank."""
        return (self.folder / f"rank{rank}.err").read_text()

    def wait(self, timeout_seconds: float = 200) -> list[int | None]:
        """The exit status of each rank, None where it had to be ended by us."""
        for process in self.processes:
            process.join(timeout_seconds)
        statuses = [process.exitcode for process in self.processes]
        self.kill()
        return statuses

    def kill(self) -> None:
        """End all with SIGKILL."""
        for process in self.processes:
            process.kill()
            process.join()

    def complete(self) -> None:
        """Wait, and fail with what was said unless all ended well."""
        statuses = self.wait()
        said = "\n".join(self.said(rank) for rank in range(len(statuses)))
        assert statuses == [0] * len(statuses), f"{statuses}\n{said}"


def start_ranks(
    function: Callable[..., None],
    *arguments: Any,
    world_size: int,
    folder: Path,
    environment: Mapping[str, str] | None = None,
) -> Ranks:
    """Run `function(*arguments)` in each of `world_size` processes."""
    folder.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    processes = [
        _SERVER.Process(
            target=_run_rank,
            args=(rank, world_size, port, folder, dict(environment or {}), function, arguments),
        )
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    return Ranks(list(processes), folder)


def start_command(
    *arguments: str | Path,
    world_size: int,
    folder: Path,
    faults: Mapping[str, Any] | None = None,
) -> Ranks:
    """`python -m distributed_pretrain ARGUMENTS` on each rank, with `faults` (see faults.py)."""
    return start_ranks(
        _command,
        [str(argument) for argument in arguments],
        world_size=world_size,
        folder=folder,
        environment={"FAULTS": json.dumps(faults or {})},
    )


def _command(arguments: list[str]) -> None:
    from distributed_pretrain.__main__ import main
    from tests.distributed.faults import inject

    inject(json.loads(os.environ["FAULTS"]))
    sys.exit(main(arguments))


def _run_rank(
    rank: int,
    world_size: int,
    port: int,
    folder: Path,
    environment: dict[str, str],
    function: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    with (folder / f"rank{rank}.err").open("w") as errors:
        os.dup2(errors.fileno(), 2)
    # A rank that hangs says where, even with the interpreter's lock held.
    faulthandler.dump_traceback_later(150, file=2)
    import torch

    torch.set_num_threads(1)
    os.environ |= environment | {"ACCELERATE_USE_CPU": "true"}
    if world_size > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(world_size),
            "LOCAL_WORLD_SIZE": str(world_size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    function(*arguments)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])

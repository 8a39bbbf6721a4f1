"""Real processes on this machine that form one group, of gloo unless told, in milliseconds.

Each is told which rank it is by the variables a launcher sets.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.forks import Started, fork


@dataclass
class Ranks:
    """Running ranks."""

    processes: list[Started]

    def said(self, rank: int) -> str:
        """The stderr of one rank."""
        return self.processes[rank].said

    def wait(self, timeout_seconds: float = 200) -> list[int | None]:
        """The exit status of each rank, None where it had to be ended by us."""
        statuses = [process.wait(timeout_seconds) for process in self.processes]
        self.kill()
        return statuses

    def kill(self) -> None:
        """End all with SIGKILL."""
        for process in self.processes:
            process.kill()

    def complete(self) -> None:
        """Wait, and fail with what was said unless all ended well."""
        statuses = self.wait()
        said = "\n".join(process.said for process in self.processes)
        assert statuses == [0] * len(statuses), f"{statuses}\n{said}"


def start_ranks(
    function: Callable[..., None],
    *arguments: Any,
    world_size: int,
    folder: Path,
    environment: Mapping[str, str] | None = None,
) -> Ranks:
    """Run `function(*arguments)` in each of `world_size` processes."""
    port = _free_port()
    return Ranks(
        [
            fork(
                function,
                *arguments,
                files=folder / f"rank{rank}",
                environment={
                    "ACCELERATE_USE_CPU": "true",
                    **(_variables_of(rank, world_size, port) if world_size > 1 else {}),
                    **(environment or {}),
                },
            )
            for rank in range(world_size)
        ]
    )


def _variables_of(rank: int, world_size: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def start_command(
    *arguments: str | Path,
    world_size: int,
    folder: Path,
    faults: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Ranks:
    """`python -m distributed_pretrain ARGUMENTS` on each rank, with `faults` (see faults.py)."""
    return start_ranks(
        _command,
        [str(argument) for argument in arguments],
        world_size=world_size,
        folder=folder,
        environment={"FAULTS": json.dumps(faults or {}), **(environment or {})},
    )


def _command(arguments: list[str]) -> None:
    from distributed_pretrain.__main__ import main
    from tests.distributed.faults import inject

    inject(json.loads(os.environ["FAULTS"]))
    sys.exit(main(arguments))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])

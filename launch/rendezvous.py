"""Where the ranks of a job meet: a port of rank 0's host that no other job can be given.

Ports computed from a job's number may be in use: by another user's job, or by anything else on
the node. Rank 0 takes one that the kernel says is free, and stays bound to it (without listening)
until the job ends: the kernel gives it to nobody else, and torch's store, which sets SO_REUSEADDR
as this socket does, may listen on it. The other ranks read address and port from the job's folder.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from data_shards.errors import InputError
from data_shards.files.atomic import write_text_atomically

PATIENCE_SECONDS = 600.0
SECONDS_BETWEEN_LOOKS = 0.1


@contextmanager
def meeting_place(
    path: Path, *, rank: int, master_port: int | None, told: Callable[[], bool] = lambda: False
) -> Iterator[tuple[str, int]]:
    """Host and port of rank 0, the same on every rank that gives the same `path`.

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

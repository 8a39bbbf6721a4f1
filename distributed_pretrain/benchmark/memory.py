"""Peak memory of one call, and fresh processes to measure it in.

A process that has worked before holds freed memory that a later call takes up unseen, so every
figure of a CPU deserves a process of its own.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch

from data_shards.errors import InputError

ResultT = TypeVar("ResultT")

_PROCESS = Path("/proc/self")
# Written to clear_refs: the peak starts again from what is resident now (proc(5)).
_RESET_PEAK = "5"


def peak_bytes_above_start(action: Callable[[], object], device: torch.device) -> int:
    """Bytes in use at the worst moment of `action` beyond those in use before it.

    On a GPU these are torch's allocations; on a CPU the resident memory of this process, so that
    whatever `action` reads must be touched, and its libraries warmed up, beforehand. Raises
    InputError where there is neither a GPU nor Linux's /proc.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        action()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if not (_PROCESS / "clear_refs").exists():
        raise InputError("peak memory of a CPU process: /proc/self is missing: measure on Linux")
    (_PROCESS / "clear_refs").write_text(_RESET_PEAK)
    before = _status_bytes("VmRSS")
    action()
    return _status_bytes("VmHWM") - before


def in_fresh_processes(
    function: Callable[..., ResultT], arguments: Sequence[tuple[Any, ...]]
) -> list[ResultT]:
    """The results of `function`, called side by side in a new process for each of `arguments`.

    The function is a module's own, as it is pickled; its error is raised here. Raises InputError
    if a process dies, which mostly is the system's answer to a lack of memory.
    """
    context = get_context("forkserver")
    # The server imports torch and the like once, and the processes start in milliseconds.
    context.set_forkserver_preload([__name__, function.__module__])
    with ProcessPoolExecutor(len(arguments), mp_context=context) as pool:
        futures = [pool.submit(function, *each) for each in arguments]
        try:
            return [future.result() for future in futures]
        except BrokenProcessPool as error:
            raise InputError(
                "a process of the benchmark was killed, probably for want of memory: "
                "choose smaller sizes"
            ) from error


def _status_bytes(field: str) -> int:
    """A field of /proc/self/status, which counts in KiB."""
    for line in (_PROCESS / "status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise AssertionError(f"/proc/self/status has no {field}")

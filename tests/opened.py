"""Which files of a folder were opened, and how often: by whatever code, also a library's own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

_IN_OPEN, _IN_ISDIR = 0x20, 0x40000000
_EVENT = struct.Struct("iIII")


@contextlib.contextmanager
def counting_opens(folder: Path) -> Iterator[Counter[str]]:
    """Counts by name, filled in at the end of the block, as the kernel tells them (inotify)."""
    system, found = ctypes.CDLL(None, use_errno=True), Counter[str]()
    descriptor = system.inotify_init1(os.O_NONBLOCK)
    try:
        if system.inotify_add_watch(descriptor, os.fsencode(folder), _IN_OPEN) < 0:
            raise OSError(ctypes.get_errno(), "not watched", str(folder))
        yield found
        with contextlib.suppress(BlockingIOError):
            while events := os.read(descriptor, 1 << 16):
                found.update(_names_in(events))
    finally:
        os.close(descriptor)


def _names_in(events: bytes) -> Iterator[str]:
    start = 0
    while start < len(events):
        _, kind, _, length = _EVENT.unpack_from(events, start)
        start += _EVENT.size + length
        if not kind & _IN_ISDIR:
            yield events[start - length : start].rstrip(b"\0").decode()

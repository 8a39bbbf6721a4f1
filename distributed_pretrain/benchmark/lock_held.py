"""How long the interpreter's lock is held for a sample, at most, in milliseconds.

Counted in the processor's time, so that others on the machine hardly matter: that of this process
less that of reading, checksums and decoding, which let go of the lock. Tokenizers do so too; they
are left in it.
"""

from __future__ import annotations

import os
import time
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from typing import Any

from distributed_pretrain.data import stored_images
from distributed_pretrain.data.host_batch import HostBatch

_LET_GO = ((os, "pread"), (zlib, "crc32"), (stored_images, "decode_image"))


def lock_held_ms(
    batches: Callable[[], Generator[HostBatch]], *, count: int, batch: int, warmup: int
) -> float:
    """Of `count` batches of so many samples; `batches` gives them, in one thread."""
    with closing(batches()) as stream, _timed() as spent:
        deque(islice(stream, warmup), maxlen=0)
        spent.clear()
        started = time.process_time()
        deque(islice(stream, count), maxlen=0)
        held = time.process_time() - started - sum(spent)
    return held / (count * batch) * 1e3


@contextmanager
def _timed() -> Iterator[deque[float]]:
    """The seconds of the processor that each call took which lets go of the lock."""
    spent = deque[float]()

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            started = time.thread_time()
            result = function(*arguments)
            spent.append(time.thread_time() - started)
            return result

        return call

    with ExitStack() as stack:
        for module, name in _LET_GO:
            function = getattr(module, name)
            stack.callback(setattr, module, name, function)
            setattr(module, name, timed(function))
        yield spent

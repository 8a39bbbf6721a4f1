"""Python's search for cyclic garbage, which looks at all objects that may form cycles.

Beside torch those are some half a million, and a batch of samples makes thousands: the search then
takes as long as a third of the decoding. Reference counts free nearly everything without it.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

_set_aside = 0


@contextlib.contextmanager
def collection_paused() -> Iterator[None]:
    """Without the search, while many objects are made that have no cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextlib.contextmanager
def present_objects_set_aside() -> Iterator[None]:
    """The search looks at new objects only; at all of them again when the outermost of these ends.

    For long loops that begin when what they use has been made.
    """
    global _set_aside
    if not _set_aside:
        gc.freeze()
    _set_aside += 1
    try:
        yield
    finally:
        _set_aside -= 1
        if not _set_aside:
            gc.unfreeze()

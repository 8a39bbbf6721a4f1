"""Python's search for cyclic garbage, which looks at all objects that may form cycles.

Beside torch those are some 400,000, and a batch of samples makes thousands: the search then takes
as long as a third of the decoding. Reference counts free nearly everything without it.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

_set_aside = False


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


def set_present_objects_aside() -> None:
    """Have the search look only at objects that are made from now on.

    To be called when a program has imported what it needs and not yet made what it works with;
    what can be freed is freed before. A second time in a process it does nothing, since what has
    been set aside and forms cycles is never freed.
    """
    global _set_aside
    if not _set_aside:
        _set_aside = True
        gc.collect()
        gc.freeze()

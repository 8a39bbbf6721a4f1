"""Objects that the search for cycles leaves alone."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable

import pytest

from data_shards.collector import collection_paused
from tests.paths import ROOT

SET_ASIDE = """
import gc, weakref
from data_shards.collector import set_present_objects_aside

class Knot:  # only the search frees it: it holds itself
    def __init__(self):
        self.itself = self

gc.disable()
garbage, kept = weakref.ref(Knot()), Knot()
set_present_objects_aside()
assert garbage() is None, "what can be freed is freed before"
there = gc.get_freeze_count()
assert there > 1000
watched = weakref.ref(kept)
del kept
gc.collect()
assert watched() is not None, "the search does not look there"
new = weakref.ref(Knot())
again = Knot()
set_present_objects_aside()
assert gc.get_freeze_count() <= there, "once a process"
gc.collect()
assert new() is None
"""


def test_what_is_there_is_set_aside_once_and_what_is_new_is_searched() -> None:
    """In a process of its own, for what is set aside stays so."""
    done = subprocess.run(
        [sys.executable, "-c", SET_ASIDE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("switch", [gc.enable, gc.disable])
def test_a_paused_search_goes_on_as_it_was(switch: Callable[[], None]) -> None:
    try:
        switch()
        before = gc.isenabled()
        with collection_paused():
            assert not gc.isenabled()
        assert gc.isenabled() is before
    finally:
        gc.enable()

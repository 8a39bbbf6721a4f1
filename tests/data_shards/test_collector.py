"""Objects that the search for cycles leaves alone while a long loop runs."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator

import pytest

from data_shards.collector import collection_paused, present_objects_set_aside


class Knot:
    """Only the search frees it: it holds itself."""

    def __init__(self) -> None:
        self.itself = self


def knot() -> weakref.ref[Knot]:
    return weakref.ref(Knot())


@pytest.fixture(autouse=True)
def _no_search_by_itself() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


def test_what_is_there_is_left_alone_and_what_is_new_is_not() -> None:
    before = knot()
    with present_objects_set_aside():
        within = knot()
        gc.collect()
        assert before() is not None
        assert within() is None
    gc.collect()
    assert before() is None


def test_the_outermost_alone_counts() -> None:
    with present_objects_set_aside():
        new = knot()
        with present_objects_set_aside():
            gc.collect()
            assert new() is None, "set aside by an inner one"
        frozen = gc.get_freeze_count()
        assert frozen > 0
    assert gc.get_freeze_count() < frozen


def test_an_error_ends_it() -> None:
    with pytest.raises(ZeroDivisionError), present_objects_set_aside():
        _ = 1 / 0
    with present_objects_set_aside():
        assert gc.get_freeze_count() > 0


@pytest.mark.parametrize("switch", [gc.enable, gc.disable])
def test_a_paused_search_goes_on_as_it_was(switch: Callable[[], None]) -> None:
    switch()
    before = gc.isenabled()
    with collection_paused():
        assert not gc.isenabled()
    assert gc.isenabled() is before

from __future__ import annotations

import os
import sys

import pytest
import torch

from data_shards.errors import InputError
from distributed_pretrain.benchmark.harness import (
    Ratios,
    Table,
    Target,
    in_fresh_processes,
    joined,
    peak_bytes_above_start,
    take_turns,
)
from distributed_pretrain.ranks import wait_for_all

MEBIBYTE = 2**20


def bytes_of_an_allocation(mebibytes: int) -> int:
    torch.ones(MEBIBYTE)  # what of the library is read for it at first is none of it
    return peak_bytes_above_start(lambda: torch.ones(mebibytes, MEBIBYTE // 4))


def fail(message: str) -> None:
    raise ValueError(message)


def fail_beside_ranks(number: int) -> None:
    with joined() as engine:
        if engine.rank == 1:
            raise ValueError("what went wrong")
        wait_for_all()


def end_at_once() -> None:
    os._exit(1)


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from Linux's /proc")
def test_the_peak_is_what_was_held_at_once() -> None:
    (small,), (large,) = (in_fresh_processes(bytes_of_an_allocation, [(m,)]) for m in (64, 256))
    assert small == pytest.approx(64 * MEBIBYTE, rel=0.1)
    assert large == pytest.approx(256 * MEBIBYTE, rel=0.1)


def test_an_error_in_a_fresh_process_is_raised_here() -> None:
    with pytest.raises(ValueError, match="what went wrong"):
        in_fresh_processes(fail, [("what went wrong",)])


def test_ranks_that_wait_for_a_failed_one_end_and_its_error_is_raised() -> None:
    with pytest.raises(ValueError, match="what went wrong"):
        in_fresh_processes(fail_beside_ranks, [(0,), (1,)], as_ranks=True)


def test_a_killed_process_asks_for_smaller_sizes() -> None:
    with pytest.raises(InputError, match="want of memory: choose smaller sizes"):
        in_fresh_processes(end_at_once, [()])


def test_all_take_part_in_each_turn_and_the_warm_up_is_left_out() -> None:
    taken: list[str] = []

    def measure(name: str) -> int:
        taken.append(name)
        return len(taken)

    turns = take_turns({"a": lambda: measure("a"), "b": lambda: measure("b")}, turns=2, warmup=1)
    assert taken == ["a", "b"] * 3
    assert turns == {"a": [3, 5], "b": [4, 6]}


def test_the_ratio_is_the_median_of_those_of_neighbours_in_time() -> None:
    ratios = Ratios([2.4, 18.0, 1.3], [2.0, 2.0, 1.0])
    assert ratios == [1.2, 9.0, 1.3]
    assert ratios.median == 1.3
    assert f"{ratios}".split() == ["1.300", "(1.200", "to", "9.000)"]


@pytest.mark.parametrize(("value", "at_least"), [(1.1, False), (0.9, True)])
def test_a_target_says_what_was_asked_and_whether_it_was_reached(
    value: float, at_least: bool
) -> None:
    side = "least" if at_least else "most"
    assert str(Target("x", 1.0, 1.0, at_least)) == f"x: 1, at {side} 1: reached"
    assert str(Target("x", value, 1.0, at_least)) == f"x: {value}, at {side} 1: MISSED"


def test_a_table_keeps_what_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table({"form": "<6", "seconds": ">8.2f"})
    table.row("plain", 1.234)
    table.row("big", 20)
    assert capsys.readouterr().out.splitlines() == [
        "  form    seconds",
        "  plain      1.23",
        "  big       20.00",
    ]
    assert table.rows[1] == {"form": "big", "seconds": 20}

"""Heartbeats, who is silent by them, and the lines about it."""

from __future__ import annotations

from dataclasses import replace

from distributed_pretrain.training.faults.heartbeats import Heartbeat, Peers, State
from distributed_pretrain.training.faults.verdicts import Verdict, failure, silence


def beat(rank: int, count: int = 1, *, step: int = 1, host: str = "a07") -> Heartbeat:
    return Heartbeat(rank, host, pid=100 + rank, beat=count, step=step, phase="data")


def silent_ranks(peers: Peers, now: float) -> list[int]:
    lost, _ = peers.silent(now, limit_seconds=20, spread_seconds=1)
    return [each.rank for each in lost]


def test_heartbeats_and_verdicts_survive_the_store() -> None:
    heartbeat = replace(beat(3).at(7, "save"), state=State.BROKEN)
    assert Heartbeat.from_json(heartbeat.to_json()) == heartbeat
    verdict = Verdict("rank 3 ...", exit_status=75, rank=3)
    assert Verdict.from_json(verdict.to_json().encode()) == verdict


def test_a_rank_is_silent_once_its_counter_stands_still_for_longer_than_the_limit() -> None:
    peers = Peers()
    for second in range(40):
        peers.hear(beat(1, min(second, 10)), now=second)  # stops at second 10
        peers.hear(beat(2, second), now=second)
        assert silent_ranks(peers, second) == ([1] if second > 30 else [])


def test_the_ranks_of_a_node_are_lost_together() -> None:
    peers = Peers()
    peers.hear(beat(8, host="a08"), now=0.0)
    peers.hear(beat(9, host="a08"), now=0.6)
    peers.hear(beat(1), now=3.0)
    lost, seconds = peers.silent(20.1, limit_seconds=20, spread_seconds=1)
    line = silence(lost, seconds).line
    assert line.startswith("ranks 8, 9 (node a08) have not answered for 20 s (it was at step 1")


def test_ranks_that_finished_or_leave_may_be_silent() -> None:
    peers = Peers()
    for rank, state in enumerate([State.FINISHED, State.LEAVING, State.RUNNING, State.BROKEN]):
        peers.hear(replace(beat(rank), state=state), now=0)
    assert silent_ranks(peers, 100) == [2, 3]
    assert peers.broken


def test_the_rank_behind_has_the_lowest_step_and_stood_still_first() -> None:
    peers = Peers()
    peers.hear(beat(1, 1, step=5), now=1.0)
    peers.hear(beat(2, 1, step=4), now=2.0)
    peers.hear(beat(2, 2, step=5), now=3.0)
    behind, last_move = peers.furthest_behind(beat(0, step=5), own_moved=2.5)
    assert (behind.rank, last_move) == (1, 3.0)
    behind, _ = peers.furthest_behind(beat(0, step=4), own_moved=4.0)
    assert behind.rank == 0


def test_within_a_step_the_rank_in_the_earlier_phase_is_behind() -> None:
    peers = Peers()
    peers.hear(beat(1, step=5), now=3.0)
    own = beat(0, step=5).at(5, "compute")
    assert peers.furthest_behind(own, own_moved=1.0)[0].rank == 1


def test_only_another_ranks_different_error_is_worth_a_word_of_its_own() -> None:
    bad_input = failure(ValueError("bad"), rank=1)
    assert bad_input.is_echoed_by(ValueError("bad, too"))
    assert not bad_input.is_echoed_by(ZeroDivisionError())
    lost = silence([beat(1)], 20)
    assert lost.is_echoed_by(RuntimeError("aborted"))
    assert not lost.is_echoed_by(OSError("disk full"))


def test_many_lost_ranks_make_a_short_line() -> None:
    line = silence([beat(rank, host=f"n{rank // 8}") for rank in range(64)], 20).line
    assert line.startswith("ranks 0, 1, 2, 3, 4, 5, 6, 7 and 56 more (nodes n0, n1, n2, ")
    assert len(line) < 250

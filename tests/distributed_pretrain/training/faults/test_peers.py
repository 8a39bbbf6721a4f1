"""Heartbeats, who is gone or hangs by them, and the lines about it."""

from __future__ import annotations

from dataclasses import replace

from torch._C._distributed_c10d import HashStore

from distributed_pretrain.training.faults.messages import (
    Board,
    Heartbeat,
    State,
    Verdict,
    failure,
    silence,
)
from distributed_pretrain.training.faults.peers import Breakage, Peers

BROKE = Breakage("it broke", since=0.0)


def beat(rank: int, count: int = 1, *, step: int = 1, host: str = "a07") -> Heartbeat:
    return Heartbeat(rank, host, pid=100 + rank, beat=count, step=step, phase="data")


def watched_by_rank_zero(*, hang_timeout_seconds: float | None = None) -> Peers:
    return Peers(True, 20, 1, hang_timeout_seconds)


def line_at(
    now: float,
    peers: Peers,
    own: Heartbeat | None = None,
    *,
    own_moved: float = 0.0,
    breakage: Breakage | None = None,
) -> str:
    verdict = peers.verdict(now, own or beat(0), own_moved, breakage)
    return verdict.line if verdict else ""


def test_heartbeats_and_verdicts_survive_the_store() -> None:
    heartbeat = replace(beat(3).at(7, "save"), state=State.BROKEN)
    verdict = Verdict("rank 3 ...", exit_status=75, rank=3)
    board = Board(HashStore(), [3])
    assert board.first_of(verdict) == verdict
    assert board.exchange(heartbeat, wait_for_all=True) == (verdict, [heartbeat])
    assert board.first_of(replace(verdict, rank=4)) == verdict


def test_a_rank_is_silent_once_its_counter_stands_still_for_longer_than_the_limit() -> None:
    peers = watched_by_rank_zero()
    for second in range(40):
        peers.hear(beat(1, min(second, 10)), now=second)  # stops at second 10
        peers.hear(beat(2, second), now=second)
        assert line_at(second, peers).startswith("rank 1 (node a07") == (second > 30)


def test_the_ranks_of_a_node_are_lost_together() -> None:
    peers = watched_by_rank_zero()
    peers.hear(beat(8, host="a08"), now=0.0)
    peers.hear(beat(9, host="a08"), now=0.6)
    peers.hear(beat(1), now=3.0)
    line = line_at(20.1, peers)
    assert line.startswith("ranks 8, 9 (node a08) have not answered for 20 s (it was at step 1")


def test_ranks_that_finished_or_leave_may_be_silent() -> None:
    peers = watched_by_rank_zero()
    for rank, state in enumerate([State.FINISHED, State.LEAVING, State.RUNNING, State.RUNNING]):
        peers.hear(replace(beat(rank), state=state), now=0)
    assert line_at(100, peers).startswith("ranks 2, 3 (node a07)")


def test_less_silence_is_a_loss_once_a_collective_of_any_rank_broke() -> None:
    peers = watched_by_rank_zero()
    peers.hear(beat(1), now=0)
    assert not line_at(4, peers)
    assert line_at(4, peers, breakage=BROKE).startswith("rank 1")
    peers.hear(replace(beat(2), state=State.BROKEN), now=0)
    assert line_at(4, peers).startswith("ranks 1, 2")


def test_the_rank_behind_has_the_lowest_step_and_stood_still_first() -> None:
    peers = watched_by_rank_zero()
    for second in range(30):
        peers.hear(beat(1, second, step=5), now=second)
        peers.hear(beat(2, second, step=4 if second < 3 else 5), now=second)
    behind = "it broke, but every rank lives; rank {} (node a07"
    for own, own_moved, expected in ((beat(0, step=5), 2.5, 1), (beat(0, step=4), 4.0, 0)):
        line = line_at(29, peers, own, own_moved=own_moved, breakage=BROKE)
        assert line.startswith(behind.format(expected))


def test_within_a_step_the_rank_in_the_earlier_phase_is_behind() -> None:
    peers = watched_by_rank_zero(hang_timeout_seconds=5)
    peers.hear(beat(1, step=5), now=3.0)
    own = beat(0, step=5).at(5, "compute")
    line = line_at(9, peers, own, own_moved=1.0)
    assert line.startswith("no rank moved on for 6 s, but every rank lives; rank 1")
    assert not line_at(9, peers, own, own_moved=8.0)


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

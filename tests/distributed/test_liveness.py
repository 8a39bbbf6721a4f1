"""Real gloo ranks of which one is killed, stopped, fails or hangs: how the others end."""

from __future__ import annotations

import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from torch.distributed.rendezvous import rendezvous

from data_shards.errors import InputError
from distributed_pretrain.ranks import is_communication_error
from distributed_pretrain.training.faults.liveness import Liveness
from tests.distributed.liveness_rank import TIMEOUT_SECONDS, Scenario, run
from tests.distributed.ranks import start_ranks

# One worker: ranks of several files at a time would be slow, and these have a time to keep.
pytestmark = pytest.mark.xdist_group("liveness")

LOST = 75
# Ranks that start and end, on a machine that is busy.
MARGIN_SECONDS = 20.0


@dataclass
class Ending:
    """Exit statuses (None: still there, and then killed), and what each rank said."""

    statuses: list[int | None]
    lines: list[str]
    seconds: float

    @property
    def all_lines(self) -> str:
        """Of all ranks."""
        return "".join(self.lines)


def end_of(scenario: Scenario, folder: Path, *, agent_store: bool = False) -> Ending:
    """Start the ranks; wait for all but a stopped or hanging victim.

    With a store that lives on, a stopped one is woken when the others have gone.
    """
    agent = None
    if agent_store:
        agent, _, _ = next(rendezvous("tcp://127.0.0.1:0", rank=0, world_size=1))
    started = time.monotonic()
    agent_port = agent and agent.port
    ranks = start_ranks(run, scenario, agent_port, world_size=scenario.ranks, folder=folder)
    deadline = started + TIMEOUT_SECONDS + MARGIN_SECONDS
    victim = ranks.processes[scenario.victim]
    for process in ranks.processes:
        if process is not victim or scenario.fate not in ("stopped", "hangs"):
            process.wait(max(0.0, deadline - time.monotonic()))
    seconds = time.monotonic() - started
    if scenario.fate == "stopped" and agent_store:
        victim.send_signal(signal.SIGCONT)
        victim.wait(MARGIN_SECONDS)
    statuses = [process.poll() for process in ranks.processes]
    ranks.kill()
    del agent
    said = [own_lines(ranks.said(rank)) for rank in range(scenario.ranks)]
    return Ending(statuses, said, seconds)


@pytest.fixture(scope="module", autouse=True)
def _fork_server(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Up before anything is timed: it imports the product first."""
    start_ranks(print, world_size=1, folder=tmp_path_factory.mktemp("first")).complete()


def own_lines(said: str) -> str:
    """Without torch's own warnings about connections that broke."""
    ours = re.compile(r"^(rank |ranks |error: |the |no |Traceback|\w*Error|saved|finished)")
    return "".join(line for line in said.splitlines(keepends=True) if ours.match(line))


def test_ranks_that_finish_leave_without_a_word(
    tmp_path: Path,
) -> None:
    ending = end_of(Scenario("finishes late", ranks=3), tmp_path)
    assert ending.statuses == [0, 0, 0]
    assert ending.lines == ["finished\n"] * 3


@pytest.mark.parametrize(
    ("scenario", "agent_store", "speaker"),
    [
        (Scenario("killed"), False, 0),
        (Scenario("killed", victim=2, ranks=3), False, 0),
        (Scenario("killed", victim=0, ranks=3), False, 1),
        (Scenario("killed", victim=0), True, 1),
        (Scenario("killed", others_compute=True), False, 0),
        (Scenario("killed", victim=0, others_compute=True), False, 1),
        (Scenario("killed", victim=0, ranks=3, others_compute=True), True, 1),
        (Scenario("stopped", ranks=3), False, 0),
        (Scenario("stopped", victim=0), False, 1),
        (Scenario("stopped", victim=0), True, 1),
    ],
    ids=str,
)
def test_a_lost_rank_is_named_once_and_the_others_ask_to_be_requeued(
    scenario: Scenario,
    agent_store: bool,
    speaker: int,
    tmp_path: Path,
) -> None:
    ending = end_of(scenario, tmp_path, agent_store=agent_store)
    was_woken = scenario.fate == "stopped" and agent_store
    for rank, status in enumerate(ending.statuses):
        if rank != scenario.victim or was_woken:
            assert status == LOST, ending
    assert ending.seconds < TIMEOUT_SECONDS + MARGIN_SECONDS
    line = rf"rank {scenario.victim} \(node \S+, pid \d+\) (has not answered for|is gone)"
    assert re.match(line, ending.lines[speaker]), ending
    assert ending.all_lines.count("\n") == 1
    assert ending.all_lines.endswith("the same command goes on from the last checkpoint\n")
    if "answered" in ending.all_lines and scenario.fate == "killed":
        assert "at step 5, data" in ending.all_lines


def test_a_checkpoint_under_way_is_written_before_the_process_ends(
    tmp_path: Path,
) -> None:
    ending = end_of(Scenario("stopped", others_save=True), tmp_path)
    assert ending.statuses[0] == LOST
    assert ending.lines[0].endswith("saved\n")


@pytest.mark.parametrize(
    ("victim", "fate", "status", "others_compute"),
    [
        (0, "bad input", 2, False),
        (1, "bad input", 2, True),
        (0, "bug", 1, True),
        (1, "bug", 1, False),
    ],
)
def test_the_others_leave_quietly_with_the_status_of_a_rank_that_fails(
    victim: int,
    fate: str,
    status: int,
    others_compute: bool,
    tmp_path: Path,
) -> None:
    scenario = Scenario(fate, victim=victim, ranks=3, others_compute=others_compute)
    ending = end_of(scenario, tmp_path)
    assert ending.statuses == [status] * 3, ending
    assert ending.lines[victim], ending
    assert ending.all_lines == ending.lines[victim]


def test_what_is_wrong_on_all_ranks_is_said_once(
    tmp_path: Path,
) -> None:
    ending = end_of(Scenario("bad input of all", ranks=3), tmp_path)
    assert ending.statuses == [2, 2, 2]
    assert ending.all_lines == "error: global_batch: not divisible\n"


@pytest.mark.parametrize(
    ("scenario", "reason"),
    [
        (Scenario("hangs", ranks=3, group_timeout_seconds=3.0), "exchange broke .*Timed out"),
        (Scenario("hangs", ranks=3, hang_timeout_seconds=2.0), "no rank moved on for 2 s"),
    ],
    ids=["group's timeout", "hang timeout"],
)
def test_a_rank_that_hangs_is_named_as_the_one_behind(
    scenario: Scenario, reason: str, tmp_path: Path
) -> None:
    ending = end_of(scenario, tmp_path)
    assert [ending.statuses[0], ending.statuses[2]] == [LOST, LOST], ending
    assert re.search(reason, ending.lines[0]), ending
    behind = r"rank 1 \(node \S+, pid \d+\) is furthest behind \(at step 5, data\)"
    assert re.search(behind, ending.lines[0]), ending
    assert ending.all_lines.count("\n") == 1


def test_one_rank_alone_needs_no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with Liveness(rank=0, world_size=1, timeout_seconds=1) as liveness, liveness.kept_alive():
        liveness.at(1, "compute")
    with pytest.raises(InputError), Liveness(rank=0, world_size=1, timeout_seconds=1):
        raise InputError("bad")


def test_tensors_that_do_not_fit_are_no_lost_rank() -> None:
    at = "gloo/transport/tcp/pair.cc"
    assert is_communication_error(RuntimeError(f"[{at}:547] Connection closed by peer"))
    assert not is_communication_error(RuntimeError(f"[enforce fail at {at}:456] op.nbytes. 4 vs 8"))
    assert not is_communication_error(ValueError("Connection closed by peer"))

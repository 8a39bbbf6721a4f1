"""Real gloo ranks of which one is killed, stopped, fails or hangs: how the others end."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import socket
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path

import liveness_rank
import pytest
from liveness_rank import TIMEOUT_SECONDS, Scenario
from torch.distributed.rendezvous import rendezvous

from data_shards.records.errors import InputError
from distributed_pretrain.losses.collectives import is_communication_error
from distributed_pretrain.training.liveness import Liveness

# One worker: the fork server imports torch once for the whole file.
pytestmark = pytest.mark.xdist_group("liveness")

LOST = 75
# Ranks that start and end, on a machine that is busy.
MARGIN_SECONDS = 20.0


@dataclass
class Ending:
    """Exit statuses (None: still there, and then killed) and what each rank printed."""

    statuses: list[int | None]
    lines: list[str]
    printed: list[str]
    seconds: float

    @property
    def all_lines(self) -> str:
        return "".join(self.lines)


@pytest.fixture(scope="module")
def fork_server() -> ForkServerContext:
    """Ranks fork from a process that has torch: importing it takes seconds for each."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["liveness_rank"])
    with pytest.MonkeyPatch.context() as patch:
        # Python 3.11's fork server preloads by its own path.
        patch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))
        first = context.Process(target=print)
        first.start()
        first.join()
    return context


def end_of(
    scenario: Scenario, fork_server: ForkServerContext, folder: Path, *, agent_store: bool = False
) -> Ending:
    """Start the ranks; wait for all but a stopped or hanging victim.

    With a store that lives on, a stopped one is woken when the others have gone.
    """
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    agent = None
    if agent_store:  # as torchrun, whose store outlives every rank
        address = "tcp://127.0.0.1:" + environment["MASTER_PORT"]
        agent, _, _ = next(rendezvous(address, rank=0, world_size=1))
        environment["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    ranks = [
        fork_server.Process(target=liveness_rank.run, args=(rank, scenario, environment, folder))
        for rank in range(scenario.ranks)
    ]
    started = time.monotonic()
    for process in ranks:
        process.start()
    deadline = started + TIMEOUT_SECONDS + MARGIN_SECONDS
    for rank, process in enumerate(ranks):
        if not (rank == scenario.victim and scenario.fate in ("stopped", "hangs")):
            process.join(max(0.0, deadline - time.monotonic()))
    seconds = time.monotonic() - started
    if scenario.fate == "stopped" and agent_store:
        os.kill(ranks[scenario.victim].pid or 0, signal.SIGCONT)
        ranks[scenario.victim].join(MARGIN_SECONDS)
    statuses = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
        process.join()
    del agent
    return Ending(
        statuses,
        # Torch's own warnings about connections that broke are not ours.
        [own_lines(folder / f"stderr{rank}") for rank in range(scenario.ranks)],
        [(folder / f"stdout{rank}").read_text() for rank in range(scenario.ranks)],
        seconds,
    )


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def own_lines(path: Path) -> str:
    ours = re.compile(r"^(rank |ranks |error: |the |no |Traceback|\w*Error)")
    return "".join(line for line in path.read_text().splitlines(True) if ours.match(line))


def test_ranks_that_finish_leave_without_a_word(
    fork_server: ForkServerContext, tmp_path: Path
) -> None:
    ending = end_of(Scenario("finishes late", ranks=3), fork_server, tmp_path)
    assert ending.statuses == [0, 0, 0]
    assert ending.printed == ["finished\n"] * 3
    assert ending.all_lines == ""


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
    fork_server: ForkServerContext,
    tmp_path: Path,
) -> None:
    ending = end_of(scenario, fork_server, tmp_path, agent_store=agent_store)
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
    fork_server: ForkServerContext, tmp_path: Path
) -> None:
    ending = end_of(Scenario("stopped", others_save=True), fork_server, tmp_path)
    assert ending.statuses[0] == LOST
    assert ending.printed[0] == "saved\n"


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
    fork_server: ForkServerContext,
    tmp_path: Path,
) -> None:
    scenario = Scenario(fate, victim=victim, ranks=3, others_compute=others_compute)
    ending = end_of(scenario, fork_server, tmp_path)
    assert ending.statuses == [status] * 3, ending
    assert ending.lines[victim], ending
    assert ending.all_lines == ending.lines[victim]


def test_what_is_wrong_on_all_ranks_is_said_once(
    fork_server: ForkServerContext, tmp_path: Path
) -> None:
    ending = end_of(Scenario("bad input of all", ranks=3), fork_server, tmp_path)
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
    scenario: Scenario, reason: str, fork_server: ForkServerContext, tmp_path: Path
) -> None:
    ending = end_of(scenario, fork_server, tmp_path)
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

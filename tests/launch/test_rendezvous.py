from __future__ import annotations

import json
import multiprocessing
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
import torch.distributed

from data_shards.errors import InputError
from launch import rank as launch_rank
from launch.rank import meeting_place


def test_two_jobs_at_the_same_time_meet_at_different_ports(tmp_path: Path) -> None:
    with ExitStack() as jobs:
        places = [
            jobs.enter_context(meeting_place(tmp_path / str(job), rank=0, master_port=None))
            for job in range(20)
        ]
    assert len({port for _, port in places}) == 20


def test_a_held_port_is_given_to_nobody_else(tmp_path: Path) -> None:
    with (
        meeting_place(tmp_path / "a", rank=0, master_port=None) as (_, port),
        socket.socket() as other,
        pytest.raises(OSError, match="in use"),
    ):
        other.bind(("", port))


def test_torch_listens_on_the_held_port(tmp_path: Path) -> None:
    with meeting_place(tmp_path / "a", rank=0, master_port=None) as (_, port):
        store = torch.distributed.TCPStore("localhost", port, world_size=1, is_master=True)  # type: ignore[attr-defined]
        store.set("greeting", "hello")
        assert store.get("greeting") == b"hello"


def test_other_ranks_read_where_rank_0_is(tmp_path: Path) -> None:
    with (
        meeting_place(tmp_path / "a", rank=0, master_port=None) as place,
        meeting_place(tmp_path / "a", rank=1, master_port=None) as read,
    ):
        assert read == place
    assert not (tmp_path / "a").exists()


def test_a_fixed_port_is_taken_as_it_is(tmp_path: Path) -> None:
    with socket.socket() as finder:
        finder.bind(("", 0))
        free = finder.getsockname()[1]
    with meeting_place(tmp_path / "a", rank=0, master_port=free) as (_, port):
        assert port == free


def test_a_fixed_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        taken = other.getsockname()[1]
        with (
            pytest.raises(InputError, match=f"master_port={taken}: not free .*: choose another"),
            meeting_place(tmp_path / "a", rank=0, master_port=taken),
        ):
            pass


def test_ranks_whose_rank_0_does_not_come_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch_rank, "PATIENCE_SECONDS", 0.0)
    with (
        pytest.raises(InputError, match="rank 0 said no address"),
        meeting_place(tmp_path / "a", rank=1, master_port=None),
    ):
        pass


def test_ranks_that_wait_for_rank_0_end_when_told(tmp_path: Path) -> None:
    with (
        pytest.raises(InterruptedError),
        meeting_place(tmp_path / "a", rank=1, master_port=None, told=lambda: True),
    ):
        pass


def _sum_ranks(folder: Path, rank: int) -> None:
    with meeting_place(folder / "place", rank=rank, master_port=None) as (host, port):
        torch.distributed.init_process_group(
            "gloo", init_method=f"tcp://{host}:{port}", rank=rank, world_size=2
        )
        total = torch.tensor([rank + 1.0])
        torch.distributed.all_reduce(total)
        torch.distributed.destroy_process_group()
    (folder / f"sum{rank}.json").write_text(json.dumps(total.item()))


def test_a_gloo_group_forms_over_it(tmp_path: Path) -> None:
    # Fork servers import torch once for both.
    context = multiprocessing.get_context("forkserver")
    ranks = [context.Process(target=_sum_ranks, args=(tmp_path, rank)) for rank in (1, 0)]
    for each in ranks:
        each.start()
    for each in ranks:
        each.join(120)
    assert [each.exitcode for each in ranks] == [0, 0]
    assert [json.loads((tmp_path / f"sum{rank}.json").read_text()) for rank in (0, 1)] == [3, 3]

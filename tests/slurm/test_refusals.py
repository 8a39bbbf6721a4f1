"""What cannot run is refused in one line before anything is queued, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.slurm.cluster import SlurmCluster
from tests.slurm.jobs import CLUSTER, Launcher


@pytest.mark.parametrize(
    ("cluster", "overrides", "words"),
    [
        (["partition=gpu"], [], ["partition=gpu", "no such partition", "test, urgent"]),
        ([], ["data.shards=/nowhere/shards"], ["/nowhere/shards"]),
        (["nodes=3"], [], ["global_batch=8", "3 ranks"]),
        (["exclude=n9"], [], ["Slurm would not take this job", "Invalid node name"]),
        (["constraint=v100"], [], ["Slurm would not take this job", "Invalid feature"]),
        (["memory_gb_per_node=400"], [], ["Slurm would not take this job"]),
        (["sbatch={reservation: mine}"], [], ["Slurm would not take this job", "reservation"]),
        (["node=2"], [], ["node", "nodes"]),
    ],
)
def test_what_cannot_run_is_not_queued(
    cluster: list[str],
    overrides: list[str],
    words: list[str],
    launcher: Launcher,
    slurm: SlurmCluster,
    tiny_profile: Path,
    tmp_path: Path,
) -> None:
    before = slurm.run("squeue", "--noheader", "--format=%i")
    run_folder = tmp_path / "run"
    command = ("pretrain", str(tiny_profile), f"run_folder={run_folder}", *overrides)
    said = launcher("submit", CLUSTER, *cluster, "--", *command)
    assert said.status == 2
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    for word in words:
        assert word in said.err
    assert slurm.run("squeue", "--noheader", "--format=%i") == before
    assert not run_folder.exists()

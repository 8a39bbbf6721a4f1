"""The sbatch script, against recorded files (`RECORD=1` writes them anew)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from launch.settings import (
    ApptainerConfig,
    ClusterConfig,
    EnvironmentConfig,
    NcclConfig,
    PyxisConfig,
)
from launch.slurm import sbatch_script

RECORDED = Path(__file__).parent / "recorded"
SUBMISSION = Path("/scratch/ann lee/runs/lovt/jobs/001-pretrain")
VENV = EnvironmentConfig(venv=Path("/home/ann/venv"))
CLUSTERS = {
    "a100_2x8": ClusterConfig(
        nodes=2,
        gpus_per_node=8,
        cpus_per_rank=8,
        memory_gb_per_node=400,
        time_minutes=1440,
        signal_seconds=180,
        partition="gpu",
        account="radiology",
        qos="high",
        constraint="a100&ib",
        exclude="node[03-04]",
        sbatch={"mail-type": "FAIL", "exclusive": True, "nice": 100},
        srun=("--cpu-bind=cores", "--mpi=none"),
        environment=EnvironmentConfig(
            modules=("cuda/12.4", "gcc"),
            setup=("source /etc/profile.d/site.sh", "ulimit -n 65536"),
            variables={"HF_HUB_OFFLINE": "1", "NOTE": "two words"},
            venv=Path("/home/ann/venv"),
        ),
        nccl=NcclConfig(
            debug="INFO",
            socket_interface="ib0",
            infiniband_devices="mlx5",
            infiniband=True,
            peer_to_peer=False,
        ),
    ),
    "pyxis": ClusterConfig(
        nodes=2,
        gpus_per_node=8,
        container=PyxisConfig(image="/images/train.sqsh", mounts=("/data:/data",)),
    ),
    "apptainer": ClusterConfig(
        gpus_per_node=1,
        container=ApptainerConfig(image="/images/train.sif", mounts=("/data:/data:ro",)),
    ),
    "cpu_array_of_6": ClusterConfig(cpus_per_rank=2, running_at_most=3, environment=VENV),
}


def script_of(name: str, submission: Path = SUBMISSION) -> str:
    tasks = 6 if "array" in name else 1
    return sbatch_script(CLUSTERS[name], submission=submission, tasks=tasks)


@pytest.fixture(autouse=True)
def _submitted_from_the_same_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "cwd", lambda: Path("/home/ann/work"))


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_script_is_the_recorded_one(name: str) -> None:
    path = RECORDED / f"{name}.sh"
    if os.environ.get("RECORD") == "1":
        path.write_text(script_of(name))
    assert script_of(name) == path.read_text()


def test_every_recorded_script_is_of_a_cluster_here() -> None:
    assert {path.stem for path in RECORDED.iterdir()} == set(CLUSTERS)


@pytest.mark.parametrize("name", CLUSTERS)
def test_bash_reads_the_script(name: str) -> None:
    done = subprocess.run(
        ["bash", "-n"], input=script_of(name), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_module_that_does_not_load_ends_the_job() -> None:
    assert "module load cuda/12.4 || exit 1\n" in script_of("a100_2x8")


class Node:
    """Runs a script as Slurm's batch shell would, with stand-ins for Slurm's commands."""

    def __init__(self, folder: Path) -> None:
        self.submission = folder / "jobs folder"
        self.programs = folder / "bin"
        self.requeued = folder / "requeued"
        self.wish = self.submission / "requeue-12-1"
        self.submission.mkdir()
        self.programs.mkdir()
        self._write("scontrol", f'echo "$@" >> {self.requeued}')
        # Between two questions to a Slurm that does not answer.
        self._write("sleep", "exit 0")

    def _write(self, name: str, line: str) -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    def run(self, *, state: str, status: int, answers: int = 0) -> int:
        self._write("squeue", f"echo {state}; exit {answers}")
        self._write("srun", f"exit {status}")
        done = subprocess.run(
            ["bash"],
            input=script_of("cpu_array_of_6", self.submission),
            env={"PATH": f"{self.programs}:{os.environ['PATH']}", "SLURM_JOB_ID": "12"}
            | {"SLURM_RESTART_COUNT": "1"},
            text=True,
            check=False,
        )
        return done.returncode


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_a_job_whose_rank_0_wishes_it_is_requeued_once(node: Node) -> None:
    node.wish.touch()
    assert node.run(state="RUNNING", status=0) == 0
    assert node.requeued.read_text() == "requeue 12\n"
    # By which the next start knows that this was the job's own doing.
    assert [each.name for each in node.submission.iterdir()] == ["requeued-12-1"]


def test_the_wish_of_a_start_that_slurm_cut_short_is_not_granted_to_the_next(node: Node) -> None:
    (node.submission / "requeue-12-0").touch()
    assert node.run(state="RUNNING", status=0) == 0
    assert not node.requeued.exists()


def test_a_job_is_not_called_completed_when_slurm_could_not_be_asked(node: Node) -> None:
    node.wish.touch()
    assert node.run(state="RUNNING", status=0, answers=1) == 75
    assert not node.requeued.exists()


def test_a_job_without_the_wish_is_not_requeued(node: Node) -> None:
    (node.submission / "requeue-13-1").touch()
    assert node.run(state="RUNNING", status=0) == 0
    assert not node.requeued.exists()


@pytest.mark.parametrize("state", ["COMPLETING", "CANCELLED", "PREEMPTED", "REQUEUE_HOLD", "''"])
def test_a_job_that_slurm_is_ending_is_not_requeued(node: Node, state: str) -> None:
    node.wish.touch()
    node.run(state=state, status=0)
    assert not node.requeued.exists()
    assert [each.name for each in node.submission.iterdir()] == [node.wish.name]


@pytest.mark.parametrize("status", [1, 2, 137])
def test_the_job_ends_with_the_status_of_its_ranks(node: Node, status: int) -> None:
    assert node.run(state="RUNNING", status=status) == status

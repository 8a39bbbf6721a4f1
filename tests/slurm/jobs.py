"""Jobs of the launcher on the tests' Slurm: submitted as a user does, and held at a given step."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil

from distributed_pretrain.run_folder.folder import RunFolder
from distributed_pretrain.run_folder.metrics import is_timing
from launch.__main__ import main
from launch.records import JobFolder, newest_job
from tests.paths import ROOT
from tests.slurm.cluster import SlurmCluster
from tests.slurm.daemons import living_processes, wait_until

CLUSTER = "configs/cluster/slurm_cpu.yaml"
# Seconds: a start imports torch, on machines that may be slow.
PATIENCE = 180.0
# What the submitting shell holds and nobody else is to read.
SECRET = "hunter2-of-the-submitting-shell"
STEPS = 18
# A held rank gives no sign of life.
OVERRIDES = (
    f"training.max_steps={STEPS}",
    "training.validate_every_steps=6",
    "training.checkpoint_every_steps=4",
    "training.rank_timeout_seconds=200",
)


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str


class Launcher:
    """`python -m launch` on the tests' Slurm, in this process: it saves a start of Python."""

    def __init__(self, slurm: SlurmCluster) -> None:
        self.slurm = slurm

    @property
    def environment(self) -> dict[str, str]:
        """The shell of the user who submits."""
        ours = {"PYTHONPATH": str(ROOT), "SECRET_TOKEN": SECRET}
        return self.slurm.environment | ours

    def __call__(self, *words: str | Path, folder: Path = ROOT) -> Said:
        """Run a command in a working folder."""
        out, err = io.StringIO(), io.StringIO()
        with (
            patch.dict(os.environ, self.environment, clear=True),
            contextlib.chdir(folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            status = main([str(word) for word in words])
        return Said(status, out.getvalue(), err.getvalue())

    def submit(self, profile: Path, run_folder: Path, *cluster: str) -> Job:
        """A pre-training of two ranks, one on each node."""
        words = submit_words(profile, run_folder, *cluster)
        said = self(*words)
        assert said.status == 0, said
        return Job(self.slurm, run_folder)


def submit_words(profile: Path, run_folder: Path, *cluster: str) -> list[str]:
    """What a user types after `python -m launch`."""
    return [
        *("submit", CLUSTER, "nodes=2", "cpus_per_rank=1", "time_minutes=30", *cluster, "--"),
        *("pretrain", str(profile), f"run_folder={run_folder}", *OVERRIDES),
    ]


class Job:
    """The newest job about a run folder."""

    def __init__(self, slurm: SlurmCluster, run_folder: Path) -> None:
        self.slurm, self.run_folder = slurm, run_folder
        folder = newest_job(run_folder)
        assert folder is not None
        self.folder: JobFolder = folder
        self.number = int(folder.record().job_id)

    def log(self, rank: int = 0) -> str:
        """What a rank has said."""
        path = self.folder.path / f"{self.number}_{rank}_log.out"
        return path.read_text() if path.exists() else ""

    def wait_for(self, state: str) -> None:
        """Return once the job is in `state`."""
        try:
            self.slurm.wait_for(self.number, {state}, PATIENCE)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.log()}\n{self.folder.events()}") from None

    def start_again(self) -> None:
        """Wait until it was requeued, and start it without Slurm's delay."""
        self.wait_for("PENDING")
        self.slurm.start_now(self.number)

    def port(self) -> int:
        """The port at which the ranks of its first start meet, while they run."""
        path = self.folder.path / f"meeting-{self.number}-0.json"
        wait_until(path.exists, f"rank 0 of job {self.number} listens", PATIENCE)
        return int(json.loads(path.read_text())[1])

    def events(self) -> list[str]:
        """The names of what befell it."""
        return [each.event for each in self.folder.events()]

    @contextlib.contextmanager
    def held(self, step: int) -> Iterator[Sequence[psutil.Process]]:
        """The stopped processes of rank 0 and 1, `step` or a few more steps in; then they go on."""
        self._wait_for_step(step)
        processes = sorted(self._training(), key=lambda each: each.environ()["RANK"])
        assert [each.environ()["RANK"] for each in processes] == ["0", "1"], self.log()
        for process in processes:
            process.suspend()
        try:
            yield processes
        finally:
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    def _wait_for_step(self, step: int) -> None:
        def reached() -> bool:
            state = self.slurm.job(self.number)["JobState"]
            assert state in {"PENDING", "RUNNING", "COMPLETING"}, f"{state}\n{self.log()}"
            return self.step() >= step

        wait_until(reached, f"job {self.number} is at step {step}:\n{self.log()}", PATIENCE)

    def step(self) -> int:
        """The newest step in the metrics."""
        path = self.run_folder / "metrics.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return int(json.loads(lines[-1])["step"]) if lines else 0

    def _training(self) -> list[psutil.Process]:
        here = {
            "SLURM_CONF": str(self.slurm.place.slurm_conf),
            "SLURM_JOB_ID": str(self.number),
        }
        return living_processes(
            lambda process: (
                "distributed_pretrain" in process.cmdline()
                and here.items() <= process.environ().items()
            )
        )


def decided(run_folder: Path) -> list[dict[str, Any]]:
    """All metrics but the times."""
    lines = RunFolder(run_folder).read_metrics()
    return [{k: v for k, v in line.items() if not is_timing(k)} for line in lines]


def saved_steps(run_folder: Path) -> list[int]:
    """The steps of the whole checkpoints."""
    found = (run_folder / "checkpoints").glob("step_*/COMPLETE")
    return sorted(int(each.parent.name.removeprefix("step_")) for each in found)

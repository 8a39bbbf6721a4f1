"""Pre-training jobs of two ranks on two nodes: whatever befalls them, they end as one local run."""

from __future__ import annotations

import json
import math
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

from data_shards.profiles import load_profile
from launch.records import newest_job
from launch.settings import ClusterConfig
from launch.slurm import sbatch_script
from tests.distributed.ranks import start_command
from tests.paths import ROOT
from tests.slurm.cluster import SlurmCluster
from tests.slurm.jobs import (
    CLUSTER,
    OVERRIDES,
    SECRET,
    STEPS,
    Job,
    Launcher,
    decided,
    saved_steps,
    submit_words,
)

pytestmark = pytest.mark.timeout(900)
OF_SNAPSHOT = "from the snapshot"


@pytest.fixture(scope="module")
def local_run(tiny_profile: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of two ranks of this machine that nobody interrupted."""
    folder = tmp_path_factory.mktemp("local")
    start_command(
        *("pretrain", tiny_profile, f"run_folder={folder / 'run'}", *OVERRIDES),
        world_size=2,
        folder=folder,
    ).complete()
    return folder / "run"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs are."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def whole(launcher: Launcher, tiny_profile: Path, folder: Path) -> Job:
    """The finished job that the first test ran beside its own, or another where it was not run."""
    if newest_job(folder / "whole") is None:
        launcher.submit(tiny_profile, folder / "whole")
    job = Job(launcher.slurm, folder / "whole")
    job.wait_for("COMPLETED")
    return job


def test_a_run_that_is_interrupted_in_every_way_ends_as_one_that_is_not(
    launcher: Launcher, slurm: SlurmCluster, tiny_profile: Path, local_run: Path, folder: Path
) -> None:
    """The time limit, a preemption and a dead node; another job runs beside it to its end."""
    job = launcher.submit(tiny_profile, folder / "interrupted", "signal_seconds=90")
    with job.held(4):
        # What a requeued job runs is the snapshot, not what has become of the checkout since.
        for package in ("launch", "distributed_pretrain"):
            with (job.folder.path / "code" / package / "__init__.py").open("a") as file:
                file.write(f"\nprint('{package} {OF_SNAPSHOT}', flush=True)\n")
        beside = submit_as_a_user_does(launcher, tiny_profile, folder / "whole")
        assert beside.port() != job.port()
        bring_time_limit_near(slurm, job.number)
        # Slurm's warning lets them go on.
        job.wait_for("PENDING")
    beside.wait_for("COMPLETED")
    assert job.events() == ["started", "requeued"]
    assert OF_SNAPSHOT not in job.log(0) + job.log(1)
    saved = saved_steps(job.run_folder)[-1]
    assert f"interrupted at step {saved}: checkpoint saved" in job.log()
    assert beside.events() == ["started", "finished"]
    assert decided(beside.run_folder) == decided(local_run)

    slurm.run("scontrol", "update", f"JobId={job.number}", "TimeLimit=30")
    job.start_again()
    with job.held(9):
        slurm.run("scontrol", "requeue", str(job.number))
    job.wait_for("PENDING")
    for rank in (0, 1):
        assert f"launch {OF_SNAPSHOT}" in job.log(rank)
        assert f"distributed_pretrain {OF_SNAPSHOT}" in job.log(rank)
    preempted = saved_steps(job.run_folder)[-1]
    assert preempted > saved
    assert f"interrupted at step {preempted}: checkpoint saved" in job.log()
    # Of the two, the job's own doing is the first alone.
    granted = [each.name for each in job.folder.path.glob("requeued-*")]
    assert granted == [f"requeued-{job.number}-0"]

    job.start_again()
    with job.held(14):
        slurm.kill_node("n2")
    job.wait_for("PENDING")
    slurm.revive_node("n2")
    job.start_again()
    job.wait_for("COMPLETED")
    assert decided(job.run_folder) == decided(local_run)
    row = status_row(launcher, job.run_folder)
    assert row[1:3] == ["finished", f"{STEPS}/{STEPS}"]
    assert row[6:8] == ["3", str(job.number)]


def submit_as_a_user_does(launcher: Launcher, profile: Path, run_folder: Path) -> Job:
    words = submit_words(profile, run_folder)
    done = subprocess.run(
        [sys.executable, "-m", "launch", *words],
        cwd=ROOT,
        env=launcher.environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    job = Job(launcher.slurm, run_folder)
    assert f"job {job.number}: pretrain into {run_folder}" in done.stdout
    return job


def bring_time_limit_near(slurm: SlurmCluster, number: int) -> None:
    """One to two minutes left: Slurm warns when it looks next, and does not end the job."""
    hours, minutes, seconds = map(int, slurm.job(number)["RunTime"].split(":"))
    limit = math.ceil(hours * 60 + minutes + seconds / 60) + 1
    slurm.run("scontrol", "update", f"JobId={number}", f"TimeLimit={limit}")


def status_row(launcher: Launcher, run_folder: Path) -> list[str]:
    """The words of the table's row about a run."""
    said = launcher("status", run_folder)
    assert said.status == 0, said
    return said.out.splitlines()[1].split()


def test_a_job_folder_is_private_and_tells_no_report_and_no_secret(
    whole: Job, tiny_profile: Path
) -> None:
    job = whole
    for path in (job.folder.path.parent, job.folder.path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    script = (job.folder.path / f"{job.number}_submission.sh").read_text()
    cluster = load_profile(
        ClusterConfig, ROOT / CLUSTER, ("nodes=2", "cpus_per_rank=1", "time_minutes=30")
    )
    assert script == sbatch_script(cluster, submission=job.folder.path)
    said = "".join(path.read_text() for path in job.folder.path.glob("*_log.out"))
    assert f"step {STEPS}/{STEPS}" in said
    records = (job.folder.record_file, job.folder.path / "events-rank0.jsonl", job.folder.profile)
    written = script + said + "".join(path.read_text() for path in records)
    assert SECRET not in written
    for sentence in report_sentences(tiny_profile):
        assert sentence not in written


def report_sentences(profile: Path) -> set[str]:
    """All sentences of the reports that the profile trains and validates on."""
    shards = Path(yaml.safe_load(profile.read_text())["data"]["shards"])
    sentences: set[str] = set()
    for path in shards.rglob("*.tar"):
        with tarfile.open(path) as shard:
            for member in shard:
                if member.name.endswith(".json"):
                    file = shard.extractfile(member)
                    assert file is not None
                    report = json.loads(file.read())["report"]
                    for section in report["sentences"].values():
                        sentences |= set(section)
    assert len(sentences) > 5
    return sentences


def test_logs_need_nothing_but_the_run_folder(
    launcher: Launcher, whole: Job, tmp_path: Path
) -> None:
    said = launcher("logs", "-f", whole.run_folder, folder=tmp_path)
    assert said.status == 0
    assert said.out == whole.log()
    every = launcher("logs", "--rank", "all", whole.run_folder, folder=tmp_path)
    assert f"[0] step {STEPS}/{STEPS}" in every.out
    assert "[1] submitit INFO" in every.out


def test_a_cancelled_job_saves_and_is_gone_on_with_by_the_same_command(
    launcher: Launcher, slurm: SlurmCluster, tiny_profile: Path, local_run: Path, folder: Path
) -> None:
    job = launcher.submit(tiny_profile, folder / "cancelled")
    again = launcher(*submit_words(tiny_profile, folder / "cancelled"))
    assert again.status == 2
    assert f"job {job.number} is about it and has not ended" in again.err
    # Not one of the regular checkpoints.
    with job.held(5):
        said = launcher("cancel", folder / "cancelled")
        assert said.out == f"told to end: {job.number}\n"
    job.wait_for("CANCELLED")
    saved = saved_steps(job.run_folder)[-1]
    assert f"interrupted at step {saved}: checkpoint saved" in job.log()
    assert job.events() == ["started", "cancelled"]
    assert slurm.job(job.number)["Restarts"] == "0"
    assert status_row(launcher, job.run_folder)[1] == "cancelled"

    more = launcher.submit(tiny_profile, folder / "cancelled")
    assert more.folder.path.name == "002-pretrain"
    more.wait_for("COMPLETED")
    assert more.folder.events()[0].step == saved
    assert decided(more.run_folder) == decided(local_run)


def test_a_crashed_job_is_not_requeued_and_its_rank_is_named(
    launcher: Launcher, slurm: SlurmCluster, tiny_profile: Path, whole: Job, folder: Path
) -> None:
    """Beside it, a finished job that is started once more ends at once."""
    metrics = (whole.run_folder / "metrics.jsonl").read_text()
    slurm.run("scontrol", "requeue", str(whole.number))
    job = launcher.submit(tiny_profile, folder / "crashed")
    slurm.start_now(whole.number)
    with job.held(2) as ranks:
        # Not one that leaves a core file.
        ranks[1].kill()
    job.wait_for("FAILED")
    assert slurm.job(job.number)["Restarts"] == "0"
    said = launcher("status", job.run_folder)
    assert "failed" in said.out.splitlines()[1]
    assert said.out.splitlines()[2] == "    rank 1: killed by SIGKILL (no RAM left?)"

    whole.wait_for("COMPLETED")
    assert whole.events() == ["started", "finished"] * 2
    assert (whole.run_folder / "metrics.jsonl").read_text() == metrics

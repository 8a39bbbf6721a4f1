"""The launcher on this machine, by its command line, around real training."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
import pytest

from distributed_pretrain.run_folder.folder import RunFolder
from launch.__main__ import main
from launch.records import Job, newest_job
from launch.states import read_jobs
from tests.paths import ROOT

CPU = str(ROOT / "configs" / "cluster" / "slurm_cpu.yaml")
LOCAL = (CPU, "executor=local", "cpus_per_rank=1")
FOREVER = "training.max_steps=100000"
SECONDS_UNTIL_HANGING = 240


def start(*words: str | Path) -> subprocess.Popen[str]:
    """`python -m launch WORDS` in a process group of its own, as an interactive shell does."""
    return subprocess.Popen(
        [sys.executable, "-m", "launch", *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def launch(*words: str | Path, status: int = 0) -> str:
    """What `python -m launch WORDS` prints."""
    process = start(*words)
    said, errors = process.communicate(timeout=SECONDS_UNTIL_HANGING)
    assert process.returncode == status, said + errors
    return said


def state_of(results: Path) -> Job:
    job = newest_job(results)
    assert job is not None
    [state] = read_jobs([job])
    return state


def train_to_step(results: Path, step: int) -> None:
    """Return when the run is that far."""
    deadline = time.monotonic() + SECONDS_UNTIL_HANGING
    while (progress := RunFolder(results).progress()) is None or progress.step < step:
        assert time.monotonic() < deadline, f"{results} never reached step {step}"
        time.sleep(0.1)


def saved_steps(results: Path) -> list[int]:
    return [
        int(path.parent.name.removeprefix("step_"))
        for path in (results / "checkpoints").glob("step_*/COMPLETE")
    ]


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Path]:
    """A folder for runs, whose jobs have ended when the test has."""
    folder = tmp_path / "runs"
    folder.mkdir()
    yield folder
    main(["cancel", str(folder)])


def test_two_ranks_train_to_the_end_while_their_log_is_followed(
    runs: Path, tiny_profile: Path
) -> None:
    run = runs / "two"
    words = ("pretrain", tiny_profile, f"run_folder={run}", "training.max_steps=4")
    said = launch("submit", *LOCAL, "ranks_per_node=2", "--", *words)
    assert f"pretrain into {run}" in said
    # As long as it goes on, another one about the same folder is refused.
    launch("submit", *LOCAL, "--", *words, status=2)
    logs = launch("logs", "-f", "--rank", "all", run)
    assert "[0] " in logs
    assert "[1] " in logs
    row = launch("status", run).split("\n")[1].split()
    assert row[1:3] == ["finished", "4/4"]
    assert saved_steps(run) == [4]
    # What is finished is let be, and said so.
    assert launch("cancel", run) == "no job was waiting or running\n"


def test_a_cancelled_run_saves_and_does_not_start_again(runs: Path, tiny_profile: Path) -> None:
    run = runs / "cancelled"
    words = ("pretrain", tiny_profile, f"run_folder={run}", FOREVER)
    # Saved by nothing but the end.
    rare = "training.checkpoint_every_steps=100000"
    launch("submit", *LOCAL, "--", *words, rare, "training.validate_every_steps=100000")
    train_to_step(run, 2)
    assert launch("cancel", run).startswith("told to end: ")
    launch("logs", "-f", run)
    assert state_of(run).state == "cancelled"
    assert state_of(run).restarts == 0
    [step] = saved_steps(run)
    assert step >= 2


@pytest.mark.timeout(600)
@pytest.mark.slow  # tests/slurm has a sweep that is gone on with
def test_an_interrupted_sweep_goes_on_by_the_same_command_and_shows_its_figures(
    runs: Path, tiny_profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def here(*words: str | Path) -> str:
        """In this process: nothing is started."""
        capsys.readouterr()
        assert main(list(map(str, words))) == 0
        return capsys.readouterr().out

    folder = runs / "sweep"
    points = runs / "points.csv"
    points.write_text("seed,training.max_steps\n1,20\n2,2\n3,2\n")
    often = "training.validate_every_steps=2"
    one_by_one = (*LOCAL, "running_at_most=1", "--folder", folder, "--points", points)
    command = ("sweep", *one_by_one, "--", "pretrain", tiny_profile, often)
    first, last = (folder / f"seed={n}__training.max_steps={m}" for n, m in ((1, 20), (3, 2)))
    sweep = start(*command)
    train_to_step(first, 2)
    os.killpg(sweep.pid, signal.SIGINT)
    _, errors = sweep.communicate(timeout=SECONDS_UNTIL_HANGING)
    assert sweep.returncode == 130, errors
    assert "the same command goes on" in errors
    assert min(saved_steps(first)) >= 2
    assert newest_job(last) is None
    assert "3 tasks: 3 finished\n" in launch(*command)
    lines = RunFolder(first).read_metrics()
    assert [line["step"] for line in lines if line["split"] == "train"] == [*range(1, 21)]
    assert here(*command).startswith("0 submitted; ")
    # The two that differ in their seed alone are one line.
    assert "2 of 2" in here("results", folder)
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["seed"] for row in rows] == ["1", "2", "3"]
    assert all(float(row["total"]) > 0 for row in rows)
    here("results", folder, "--output", folder / "results.parquet")
    parquet = pyarrow.parquet.read_table(folder / "results.parquet").to_pylist()
    assert [str(row["total"]) for row in parquet] == [row["total"] for row in rows]


def test_a_run_in_this_process_leaves_a_finished_job(
    runs: Path, tiny_profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs / "here"
    words = ["pretrain", str(tiny_profile), f"run_folder={run}", "training.max_steps=1"]
    assert main(["submit", CPU, "executor=debug", "--", *words]) == 0
    assert state_of(run).state == "finished"
    capsys.readouterr()
    assert main(["status", str(run)]) == 0
    assert capsys.readouterr().out.split("\n")[1].split()[1:3] == ["finished", "1/1"]


def test_a_dry_run_prints_the_script_and_a_ranks_command_and_leaves_nothing(
    tmp_path: Path, tiny_profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "none yet"
    words = ["pretrain", str(tiny_profile), f"run_folder={run}"]
    assert main(["submit", CPU, "nodes=2", "--dry-run", "--", *words]) == 0
    said = capsys.readouterr().out
    assert said.startswith("#!/bin/bash\n")
    assert "\n# each of 2 ranks\n" in said
    assert "RANK=<0..1>" in said
    assert f"-P -m distributed_pretrain pretrain '{run}/jobs/NNN-pretrain/profile.yaml'" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["submit", "gone.yaml", "--", "pretrain", "a.yaml"], "gone.yaml: no such profile"),
        (["submit", CPU], "no command: write pretrain PROFILE.yaml"),
        (["submit", CPU, "executor=debug", "nodes=2", "--", *()], "no command"),
        (["status", "gone"], "gone: no job was submitted about it"),
        (["logs", "gone", "--rank", "first"], "--rank first: a number, or all"),
        (["results", "gone"], "gone: not the folder of a sweep"),
        (["sweep", CPU, "--folder", "s", "--parts", "0", "--", "a"], "--parts 0: at least 1"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert message in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("words", [["status", "runs", "--watch"], ["submit", CPU, "--dryrun"]])
def test_words_that_no_command_has_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2


def test_in_this_process_there_is_one_rank(
    tiny_profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pretrain", str(tiny_profile), f"run_folder={tmp_path / 'run'}"]
    assert main(["submit", CPU, "executor=debug", "nodes=2", "--", *words]) == 2
    assert "executor=debug runs one rank in this process, not 2" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []

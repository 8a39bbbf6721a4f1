"""Damage to one job's files hides no other job."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launch.__main__ import main
from launch.records import JobFolder
from tests.launch.jobs import submitted


def overwrite(name: str, content: bytes) -> Callable[[JobFolder], None]:
    def damage(job: JobFolder) -> None:
        (job.path / name).write_bytes(content)

    return damage


def to_folder(job: JobFolder) -> None:
    job.record_file.unlink()
    job.record_file.mkdir()


def to_pipe(job: JobFolder) -> None:
    job.record_file.unlink()
    os.mkfifo(job.record_file)


DAMAGE = {
    "an empty record": overwrite("record.json", b""),
    "a record of NUL bytes": overwrite("record.json", bytes(300)),
    "a record that is a list": overwrite("record.json", b"[]"),
    "a deep record": overwrite("record.json", b"[" * 100_000),
    "a record that is no text": overwrite("record.json", b"\xff\xfe{}"),
    "a record that is a folder": to_folder,
    "a record that is a pipe": to_pipe,
    "events of another kind": overwrite("events-rank0.jsonl", b'{"event": "exploded"}\n'),
    "events of NUL bytes": overwrite("events-rank0.jsonl", bytes(300) + b"\n"),
    "events that are no text": overwrite("events-rank0.jsonl", b"\xff\n"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_status_shows_the_others_and_what_is_wrong(
    damage: Callable[[JobFolder], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "c"):
        submitted(tmp_path / name).add("finished")
    damage(JobFolder(tmp_path / "b" / "jobs" / "001-pretrain"))
    assert main(["status", str(tmp_path)]) == 0
    _, first, second, why, third = capsys.readouterr().out.splitlines()
    assert first.split()[1] == third.split()[1] == "finished"
    assert second.split()[1] == "unknown"
    assert "/b/jobs/001-pretrain/" in why
    assert why.endswith("of this release: delete its folder")


def test_a_run_whose_metrics_are_damaged_is_a_line_below_its_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        submitted(tmp_path / name).add("finished")
    (tmp_path / "a" / "metrics.jsonl").write_bytes(bytes(300) + b"\n")
    assert main(["status", str(tmp_path)]) == 0
    _, first, why, second = capsys.readouterr().out.splitlines()
    assert first.split()[1:3] == second.split()[1:3] == ["finished", "-"]
    assert f"{tmp_path}/a/metrics.jsonl, line 1: " in why


@pytest.fixture
def caretaker() -> Iterator[str]:
    """The number of a process that looks like the one that looks after a local job."""
    words = [sys.executable, "-c", "import sys; sys.stdin.read()", "submitit.local._local"]
    process = subprocess.Popen(words, stdin=subprocess.PIPE)
    yield str(process.pid)
    process.kill()
    process.communicate()


def test_cancel_ends_the_others_and_says_which_it_cannot_tell_of(
    tmp_path: Path, caretaker: str, capsys: pytest.CaptureFixture[str]
) -> None:
    submitted(tmp_path / "a").record_file.write_text("{")
    live = submitted(tmp_path / "b", job_id=caretaker)
    assert main(["cancel", str(tmp_path)]) == 2
    assert [each.event for each in live.events()] == ["cancelled"]
    said = capsys.readouterr().err
    assert "a/jobs/001-pretrain/record.json: not a job's record" in said
    assert "(1 such, 1 others told to end)" in said


def test_nothing_is_queued_beside_a_job_that_cannot_be_read(
    tmp_path: Path, tiny_profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody knows whether it runs, and two would write into one folder."""
    submitted(tmp_path / "run").record_file.write_text("{")
    words = ["pretrain", str(tiny_profile), f"run_folder={tmp_path / 'run'}"]
    cluster = "configs/cluster/slurm_cpu.yaml"
    assert main(["submit", cluster, "executor=local", "--", *words]) == 2
    assert "record.json: not a job's record" in capsys.readouterr().err
    assert [each.name for each in (tmp_path / "run" / "jobs").iterdir()] == ["001-pretrain"]

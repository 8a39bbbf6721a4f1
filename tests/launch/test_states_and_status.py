"""How jobs are, from what they left behind: no scheduler is asked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_shards.errors import InputError
from distributed_pretrain.run_folder.folder import TAIL_BYTES, RunFolder
from launch.records import EventName, Job, State
from launch.states import log_of, read_jobs, show_logs, status
from launch.submit import cancel
from tests.launch.jobs import submitted


@pytest.fixture
def caretaker() -> Iterator[str]:
    """The number of a process that looks like the one that looks after a local job."""
    code = "import sys; sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "submitit.local._local"], stdin=subprocess.PIPE
    )
    yield str(process.pid)
    process.kill()
    process.communicate()


def state_after(folder: Path, *events: EventName, job_id: str = "99999999") -> Job:
    job = submitted(folder, job_id=job_id)
    for event in events:
        job.add(event, rank=1, line="boom" if event == "failed" else "")
    [state] = read_jobs([job])
    return state


@pytest.mark.parametrize(
    ("events", "state", "line"),
    [
        ((), "unknown", "it ended without a word"),
        (("started",), "unknown", "it ended without a word"),
        (("started", "requeued"), "unknown", "it ended without a word"),
        (("started", "finished"), "finished", ""),
        (("started", "failed"), "failed", "rank 1: boom"),
        (("started", "failed", "requeued", "started", "finished"), "finished", ""),
        (("cancelled",), "cancelled", ""),
        (("started", "cancelled"), "cancelled", ""),
        (("cancelled", "started"), "cancelled", ""),
        (("started", "cancelled", "finished"), "finished", ""),
    ],
)
def test_the_last_word_of_an_ended_job_counts(
    tmp_path: Path, events: tuple[EventName, ...], state: State, line: str
) -> None:
    found = state_after(tmp_path, *events)
    assert (found.state, found.line) == (state, line)


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ((), "queued"),
        (("started",), "running"),
        (("started", "requeued"), "running"),
        (("started", "requeued", "started"), "running"),
        # Its ranks still save or end: a second job beside it would write into the same folder.
        (("started", "failed"), "running"),
        (("started", "cancelled"), "running"),
    ],
)
def test_a_job_whose_processes_are_there_goes_on(
    tmp_path: Path, caretaker: str, events: tuple[EventName, ...], state: State
) -> None:
    assert state_after(tmp_path, *events, job_id=caretaker).state == state


def test_a_number_that_another_process_has_now_is_not_the_job(tmp_path: Path) -> None:
    assert state_after(tmp_path, "started", job_id="1").state == "unknown"


def test_restarts_are_the_starts_after_the_first(tmp_path: Path) -> None:
    assert state_after(tmp_path, *(("started", "requeued") * 3), "started").restarts == 3


def test_cancelling_tells_those_that_go_on_and_no_others(tmp_path: Path, caretaker: str) -> None:
    live, ended = submitted(tmp_path / "a", job_id=caretaker), submitted(tmp_path / "b")
    ended.add("finished")
    assert cancel([tmp_path]) == [caretaker]
    assert [each.event for each in live.events()] == ["cancelled"]
    assert [each.event for each in ended.events()] == ["finished"]


def test_folders_without_jobs_are_one_clear_line(tmp_path: Path) -> None:
    for command in (status, cancel):
        with pytest.raises(InputError, match=r"no job was submitted about it: `python -m launch"):
            command([tmp_path])


def metrics(folder: Path, *lines: dict[str, Any], total_steps: int | None = 40) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if total_steps is not None:
        (folder / "starts.jsonl").write_text(json.dumps({"total_steps": total_steps}) + "\n")


def step(number: int, **values: float) -> dict[str, Any]:
    figures = {"total": 2.5, "pairs_per_second": 1200.0, "step_seconds": 3.0} | values
    return {"step": number, "split": "train", **figures}


def test_progress_is_that_of_the_newest_training_step(tmp_path: Path) -> None:
    metrics(tmp_path, step(9), step(10, total=1.5), {"step": 10, "split": "validate", "total": 9.0})
    progress = RunFolder(tmp_path).progress()
    assert progress is not None
    assert (progress.step, progress.total_steps, progress.loss) == (10, 40, 1.5)
    assert progress.seconds_left == 3.0 * 30


def test_one_slow_step_does_not_move_the_time_left(tmp_path: Path) -> None:
    metrics(tmp_path, *(step(n, step_seconds=500.0 if n == 5 else 2.0) for n in range(1, 11)))
    progress = RunFolder(tmp_path).progress()
    assert progress is not None
    assert progress.seconds_left == 2.0 * 30


def test_a_line_still_being_written_is_not_read(tmp_path: Path) -> None:
    metrics(tmp_path, step(1))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "spl')
    progress = RunFolder(tmp_path).progress()
    assert progress is not None
    assert progress.step == 1


def test_of_a_huge_file_the_end_is_enough(tmp_path: Path) -> None:
    metrics(tmp_path, *(step(n) for n in range(1, 30_000)), total_steps=30_000)
    path = tmp_path / "metrics.jsonl"
    with path.open("r+b") as file:
        # Whoever read it from the start would stumble.
        file.write(b"not JSON")
    assert path.stat().st_size > 10 * TAIL_BYTES
    progress = RunFolder(tmp_path).progress()
    assert progress is not None
    assert (progress.step, progress.seconds_left) == (29_999, 3.0)


def test_nothing_trained_yet_is_no_progress(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).progress() is None
    metrics(tmp_path, {"step": 0, "split": "validate", "total": 9.0})
    assert RunFolder(tmp_path).progress() is None


def test_the_table_has_a_line_a_run_and_the_error_below(
    tmp_path: Path, caretaker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    running, failed = submitted(tmp_path / "b", job_id=caretaker), submitted(tmp_path / "a")
    running.add("started")
    failed.add("failed", rank=3, line="no space left")
    metrics(tmp_path / "b", step(10))
    header, first, error, second = status([tmp_path]).split("\n")
    assert header.split() == [
        *("folder", "state", "step", "pairs/s", "loss", "left", "restarts", "job", "node")
    ]
    assert first.split() == ["a", "failed", "-", "-", "-", "-", "0", "99999999", "-"]
    assert error == "    rank 3: no space left"
    shown = ["b", "running", "10/40", "1,200", "2.5000", "0:01:30", "0", caretaker]
    assert second.split()[:-1] == shown
    assert first.index("failed") == second.index("running") == header.index("state")


def test_an_ended_run_has_no_time_left(tmp_path: Path) -> None:
    submitted(tmp_path).add("finished")
    metrics(tmp_path, step(10))
    assert status([tmp_path]).split("\n")[1].split()[5] == "-"


def test_a_log_is_printed_by_rank(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = submitted(tmp_path, ranks=2)
    job.add("finished")
    for rank in (0, 1):
        log_of(job.record(), rank).write_text(f"höllo\nfrom {rank}\n")
    show_logs(tmp_path, rank=1, follow=False)
    assert capsys.readouterr().out == "höllo\nfrom 1\n"
    last = show_logs(tmp_path, rank=None, follow=True)
    assert capsys.readouterr().out == "[0] höllo\n[0] from 0\n[1] höllo\n[1] from 1\n"
    assert last is not None
    assert last.state == "finished"


def test_logs_that_are_not_there_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no job was submitted"):
        show_logs(tmp_path, rank=0, follow=False)
    submitted(tmp_path)
    with pytest.raises(InputError, match="the job has rank 0 alone"):
        show_logs(tmp_path, rank=1, follow=False)
    with pytest.raises(InputError, match=r"_0_log.out: not there yet: the job is unknown"):
        show_logs(tmp_path, rank=0, follow=False)
    submitted(tmp_path, executor="debug")
    with pytest.raises(InputError, match="executor=debug keeps no log"):
        show_logs(tmp_path, rank=0, follow=False)


def test_a_job_that_slurm_refuses_to_end_is_not_called_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    answers = {"squeue": "echo '12|RUNNING|n1|None'", "scancel": "echo no >&2; exit 1"}
    for name, line in answers.items():
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    job = submitted(tmp_path / "run", executor="slurm", job_id="12")
    with pytest.raises(InputError, match="no"):
        cancel([tmp_path / "run"])
    assert job.events() == []
    assert read_jobs([job])[0].state == "running"


def test_a_slurm_that_does_not_answer_hides_only_what_nobody_wrote_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "squeue").write_text("#!/bin/sh\necho down >&2; exit 1\n")
    (programs / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    finished = submitted(tmp_path / "a", executor="slurm", job_id="12")
    finished.add("started")
    finished.add("finished")
    asked = submitted(tmp_path / "b", executor="slurm", job_id="13")
    states = read_jobs([finished, asked])
    assert [each.state for each in states] == ["finished", "unknown"]
    assert "squeue: down" in states[1].line

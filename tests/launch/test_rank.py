"""One rank around a real command: small modules written for the purpose."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from launch.rank import last_line
from launch.records import JobFolder
from tests.launch.rank_job import RankJob
from tests.paths import ROOT

ENDS_BY = "import os, signal\nos.kill(os.getpid(), signal.{})\n"
WAITS_FOR_SIGTERM = """
import pathlib, signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
pathlib.Path(sys.argv[-1]).touch()
signal.pause()
"""


def test_a_finished_job_is_not_requeued(job: RankJob) -> None:
    assert job.run("") is False
    assert job.said == ["started", "finished"]


def test_rank_0_alone_speaks_for_the_job(job: RankJob) -> None:
    assert job.run("", rank=1) is False
    assert job.said == []


def test_the_command_gets_its_words_and_its_threads(job: RankJob, tmp_path: Path) -> None:
    job.run(
        "import os, pathlib, sys\n"
        "said = [*sys.argv[1:3], os.environ['OMP_NUM_THREADS']]\n"
        "pathlib.Path(sys.argv[-1]).write_text(' '.join(said))\n",
        words=("a.yaml", str(tmp_path / "said")),
    )
    assert (tmp_path / "said").read_text() == "pretrain a.yaml 3"


@pytest.mark.parametrize(
    "ending",
    ["raise SystemExit(75)", *(ENDS_BY.format(name) for name in ("SIGTERM", "SIGUSR2", "SIGINT"))],
    ids=["saved", "SIGTERM", "SIGUSR2", "SIGINT"],
)
def test_a_job_that_was_told_to_end_is_requeued(job: RankJob, ending: str) -> None:
    job.save_step(8)
    assert job.run(ending) is True
    assert job.said == ["started", "requeued"]
    assert [each.step for each in job.events] == [8, 8]


def test_other_ranks_leave_requeueing_to_rank_0(job: RankJob) -> None:
    assert job.run("raise SystemExit(75)", rank=1) is False
    assert job.said == []


def test_a_checkpoint_still_being_written_is_no_progress(job: RankJob) -> None:
    job.save_step(8)
    (job.folder.results / "checkpoints" / "step_00000012").mkdir()
    job.run("raise SystemExit(75)")
    assert job.events[-1].step == 8


def _send_when(there: Path, number: signal.Signals) -> Callable[[], None]:
    def send() -> None:
        while not there.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    return send


def test_a_signal_is_passed_on_to_the_command(job: RankJob, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    sender = threading.Thread(target=_send_when(ready, signal.SIGTERM))
    sender.start()
    assert job.run(WAITS_FOR_SIGTERM, words=(str(ready),)) is True
    sender.join()


def test_a_signal_before_the_command_starts_keeps_it_from_starting(
    job: RankJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = JobFolder.add

    def add_and_be_told(self: JobFolder, *arguments: object, **more: object) -> None:
        add(self, *arguments, **more)  # type: ignore[arg-type]
        if arguments == ("started",):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(JobFolder, "add", add_and_be_told)
    ready = tmp_path / "ready"
    assert job.run("import pathlib, sys\npathlib.Path(sys.argv[-1]).touch()", words=(str(ready),))
    assert not ready.exists()


def test_handlers_are_as_before_when_the_command_has_ended(job: RankJob) -> None:
    before = signal.getsignal(signal.SIGTERM)
    job.run("")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_failure_is_kept_with_the_last_line_of_the_log(job: RankJob) -> None:
    job.log.write_text("Traceback:\nKeyError: 'study 7'\n\nsubmitit ERROR - triggered\n")
    with pytest.raises(SystemExit) as ended:
        job.run("raise SystemExit(3)", rank=2)
    assert ended.value.code == 3
    [event] = job.events
    assert (event.event, event.rank, event.line) == ("failed", 2, "KeyError: 'study 7'")


@pytest.mark.parametrize(
    ("name", "line"),
    [("SIGKILL", "killed by SIGKILL (no RAM left?)"), ("SIGSEGV", "killed by SIGSEGV")],
)
def test_what_killed_the_command_is_said(job: RankJob, name: str, line: str) -> None:
    job.log.write_text("something before\n")
    with pytest.raises(SystemExit) as ended:
        job.run("import resource\nresource.setrlimit(4, (0, 0))\n" + ENDS_BY.format(name))
    assert ended.value.code == 128 + signal.Signals[name]
    assert job.events[-1].line == line


def test_a_failure_without_a_word_says_its_status(job: RankJob) -> None:
    with pytest.raises(SystemExit):
        job.run("raise SystemExit(4)")
    assert job.events[-1].line == "exit status 4"


def test_another_ranks_failure_keeps_rank_0_from_requeueing(job: RankJob) -> None:
    fails = (
        "import sys\nfrom pathlib import Path\nfrom launch.records import JobFolder\n"
        f"JobFolder(Path({str(job.folder.path)!r})).add('failed', rank=1, line='boom')\n"
        "sys.exit(75)\n"
    )
    os.environ["PYTHONPATH"] += f":{ROOT}"
    with pytest.raises(SystemExit) as ended:
        job.run(fails)
    assert ended.value.code == 1
    assert job.said == ["started", "failed"]


def test_a_failure_of_an_earlier_start_does_not_count(job: RankJob) -> None:
    job.folder.add("started")
    job.folder.add("failed", rank=1, line="the node went down")
    assert job.run("raise SystemExit(75)") is True


def test_a_cancelled_job_is_not_requeued(job: RankJob) -> None:
    job.folder.add("started")
    job.folder.add("cancelled")
    # The word may come before the start that it ends has written its own.
    assert job.run("raise SystemExit(75)") is False
    assert job.said == ["started", "cancelled", "started"]


def test_a_job_is_requeued_no_more_often_than_allowed(job: RankJob) -> None:
    for step in (4, 8):
        assert job.run("raise SystemExit(75)", requeues=2) is True
        job.save_step(step)
    with pytest.raises(SystemExit) as ended:
        job.run("raise SystemExit(75)", requeues=2)
    assert ended.value.code == 75
    assert "requeued 2 times already" in job.events[-1].line


def test_what_slurm_itself_starts_again_counts_as_no_requeue(job: RankJob) -> None:
    """A node that dies, or a preemption: neither is a word of ours."""
    job.save_step(4)
    for _ in range(3):
        job.folder.add("started", step=4)
    assert job.run("raise SystemExit(75)", requeues=1) is True
    assert job.said == ["started"] * 4 + ["requeued"]
    # The second that was told to end where it began.
    with pytest.raises(SystemExit):
        job.run("raise SystemExit(75)", requeues=2)
    assert "ended 2 times without a step beyond 4" in job.events[-1].line


def test_a_job_that_saves_when_it_is_preempted_spends_no_requeue(job: RankJob) -> None:
    """It wished to be requeued, but Slurm did so itself: the script granted nothing."""
    job.save_step(4)
    for restart in range(4):
        assert job.run("raise SystemExit(75)", requeues=1, restart=restart, granted=frozenset())
    granted = frozenset({3})
    with pytest.raises(SystemExit):
        job.run("raise SystemExit(75)", requeues=1, restart=4, granted=granted)
    assert "requeued 1 times already" in job.events[-1].line
    with pytest.raises(SystemExit):
        job.run("raise SystemExit(75)", requeues=5, restart=5, granted=granted)
    assert "ended 2 times without a step beyond 4" in job.events[-1].line


def test_events_that_cannot_be_read_fail_the_job_in_a_line(
    job: RankJob, capsys: pytest.CaptureFixture[str]
) -> None:
    (job.folder.path / "events-user.jsonl").write_text("cancelled\n")
    with pytest.raises(SystemExit) as ended:
        job.run("raise SystemExit(75)")
    assert ended.value.code == 2
    assert "events.jsonl: not a job's events of this release" in capsys.readouterr().err


def test_a_job_that_gets_nowhere_twice_is_not_requeued(job: RankJob) -> None:
    job.save_step(4)
    assert job.run("raise SystemExit(75)") is True
    with pytest.raises(SystemExit):
        job.run("raise SystemExit(75)")
    assert "without a step beyond 4" in job.events[-1].line


def test_what_goes_on_by_tasks_is_requeued_though_it_saves_no_step(job: RankJob) -> None:
    for _ in range(4):
        assert job.run("raise SystemExit(75)", goes_on_by="tasks") is True
    assert job.said == ["started", "requeued"] * 4


def test_what_goes_on_by_nothing_is_not_begun_anew_for_ever(job: RankJob) -> None:
    # Of checkpoints that others left there it knows nothing.
    job.save_step(4)
    assert job.run("raise SystemExit(75)", goes_on_by="nothing") is True
    job.save_step(8)
    with pytest.raises(SystemExit):
        job.run("raise SystemExit(75)", goes_on_by="nothing")
    assert "ended 2 times without a step beyond 0" in job.events[-1].line


def test_a_last_line_leaves_out_what_the_scheduler_adds(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 50_000 + b"\nloss \xff nan\n  \nsrun: error\nslurmstepd: killed\n")
    assert last_line(log) == "loss \ufffd nan"
    assert last_line(tmp_path / "none") == ""

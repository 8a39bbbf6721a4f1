"""Many runs on this machine: pretended ones, and processes that take no time."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from distributed_pretrain.experiments.grid import pool
from distributed_pretrain.experiments.grid.pool import ModuleRun, Outcome, build_shards, run_all
from tests.paths import ROOT


class Pretended:
    """A run that ends with `ends_with` when it was looked at `looks` times."""

    def __init__(self, name: str, *, ends_with: int = 0, looks: int = 2) -> None:
        self.name, self.folder = name, Path(name)
        self.ends_with, self.looks = ends_with, looks
        self.was_told = self.was_started = False

    def start(self) -> None:
        assert not self.was_started
        self.was_started = True

    def status(self) -> int | None:
        self.looks -= 1
        return self.ends_with if self.looks <= 0 or self.was_told else None

    def end(self) -> None:
        self.was_told = True

    def last_word(self) -> str:
        return "boom"


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "SECONDS_BETWEEN_LOOKS", 0.001)
    monkeypatch.setattr(pool, "SECONDS_BETWEEN_LINES", 0.0)


def test_one_that_fails_does_not_hold_up_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    runs = [Pretended("a"), Pretended("b", ends_with=3), Pretended("c")]
    assert run_all(runs, at_once=1) == Outcome(failed=("b: boom",))
    assert all(run.was_started for run in runs)
    said = capsys.readouterr().err
    assert "b: ended with status 3; 2 of 3 runs" in said
    assert re.search(r"c: done in \d+ s; 3 of 3 runs", said)


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_no_more_run_at_once_than_wanted(at_once: int) -> None:
    running = 0
    most = 0

    class Counted(Pretended):
        def start(self) -> None:
            nonlocal running, most
            super().start()
            running += 1
            most = max(most, running)

        def status(self) -> int | None:
            nonlocal running
            status = super().status()
            running -= status is not None
            return status

    assert run_all([Counted(str(n)) for n in range(5)], at_once=at_once) == Outcome()
    assert most == at_once


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR2"])
def test_a_signal_ends_what_runs_and_starts_nothing_more(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = signal.Signals[name]
    before = signal.getsignal(number)
    runs = [Pretended("a", looks=10**9), Pretended("b")]
    monkeypatch.setattr(runs[0], "start", lambda: os.kill(os.getpid(), number))
    assert run_all(runs, at_once=1) == Outcome(interrupted=True)
    assert runs[0].was_told
    assert not runs[1].was_started
    assert signal.getsignal(number) is before


def test_a_run_that_others_told_to_end_ends_all() -> None:
    runs = [Pretended("a", ends_with=75), Pretended("b", looks=10**9), Pretended("c")]
    assert run_all(runs, at_once=2) == Outcome(interrupted=True)
    assert runs[1].was_told
    assert not runs[2].was_started


@pytest.mark.parametrize("where", ["start", "look"])
def test_whatever_happens_the_others_are_told_to_end(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [Pretended("a", looks=10**9), Pretended("b", looks=10**9)]

    def fail(*_: object) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(runs[1] if where == "start" else pool._Progress, where, fail)
    with pytest.raises(RuntimeError, match="a bug of ours"):
        run_all(runs, at_once=2)
    assert runs[0].was_told


def test_a_builder_ends_with_who_started_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[ModuleRun] = []
    monkeypatch.setattr(ModuleRun, "_start", lambda run, _: start_endless(run, started))
    with pytest.raises(KeyboardInterrupt):
        build_shards(tmp_path / "profile.yaml", tmp_path / "shards")
    assert started[0].status() == -signal.SIGTERM


def start_endless(run: ModuleRun, started: list[ModuleRun]) -> None:
    """A builder that would never end, and a signal to who started it."""
    run._process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    started.append(run)
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize("damage", [bytes(300) + b"\n", b"\xff\n", b'{"step": "x"}\n'])
def test_damaged_metrics_of_a_run_end_no_other(damage: bytes, tmp_path: Path) -> None:
    run = Pretended("a", looks=3)
    run.folder = tmp_path
    (tmp_path / "metrics.jsonl").write_bytes(damage)
    assert run_all([run], at_once=1) == Outcome()
    assert not run.was_told


def test_how_far_runs_are_stands_in_their_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Pretended("a", looks=3)
    run.folder = tmp_path
    (tmp_path / "metrics.jsonl").write_text('{"step": 6, "split": "train"}\n')
    (tmp_path / "starts.jsonl").write_text('{"total_steps": 12}\n')
    run_all([run], at_once=1)
    assert "0 of 1 runs; a step 6, 0:00:00 left" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("timeit", "-n1", "pass"), 0, "1 loop, best of 5"),
        (("timeit", "-n"), 2, "use -h/--help for command line help"),
    ],
)
def test_a_module_runs_in_a_process_whose_words_are_kept(
    tmp_path: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    run = ModuleRun("a", tmp_path / "new" / "folder", words, threads=1)
    outcome = run_all([run], at_once=1)
    assert run.status() == status
    assert said in run.log.read_text()
    assert [said in line for line in outcome.failed] == [True] * bool(status)


def test_a_process_is_told_to_end_by_sigterm(tmp_path: Path) -> None:
    run = ModuleRun("a", tmp_path, ("http.server", "0"), threads=1)
    run.start()
    assert run.status() is None
    run.end()
    while run.status() is None:
        pass
    assert run.status() == -signal.SIGTERM


def test_runs_are_started_and_waited_for_here_alone() -> None:
    """What else starts a process or waits is listed: a rank's command, and looks at files."""
    others = {
        "launch/rank.py": {"subprocess.Popen(", "time.sleep("},
        "launch/states.py": {"time.sleep("},
    }
    found: dict[str, set[str]] = {}
    for folder in ("distributed_pretrain/experiments", "launch"):
        for path in (ROOT / folder).rglob("*.py"):
            calls = set(re.findall(r"subprocess\.Popen\(|time\.sleep\(", path.read_text()))
            if calls:
                found[str(path.relative_to(ROOT))] = calls
    here = "distributed_pretrain/experiments/grid/pool.py"
    assert found == {here: {"subprocess.Popen(", "time.sleep("}, **others}

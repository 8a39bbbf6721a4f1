"""The first seconds of a command, and lines that one rank says for all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data_shards import starting
from data_shards.starting import say_once, started
from tests.paths import ROOT

# Stops in the first import that is not the standard library's, as a slow disk does.
WAITS_IN_ITS_IMPORTS = """
import sys, time
class Slow:
    def find_spec(self, name, *_):
        if name == "pydantic":
            print("importing", flush=True)
            time.sleep(100)
sys.meta_path.insert(0, Slow())
import runpy
sys.argv = [{package!r}, "--help"]
runpy.run_module({package!r}, run_name="__main__", alter_sys=True)
"""
STARTS_AGAIN, INTERRUPTED = 75, 130


@pytest.mark.parametrize(
    ("package", "number", "status"),
    [
        ("distributed_pretrain", signal.SIGTERM, STARTS_AGAIN),
        ("distributed_pretrain", signal.SIGUSR2, STARTS_AGAIN),
        ("distributed_pretrain", signal.SIGINT, INTERRUPTED),
        ("distributed_pretrain.experiments", signal.SIGTERM, STARTS_AGAIN),
        ("launch", signal.SIGTERM, STARTS_AGAIN),
        ("launch", signal.SIGINT, INTERRUPTED),
        ("data_shards", signal.SIGTERM, INTERRUPTED),
        ("data_shards", signal.SIGUSR2, INTERRUPTED),
    ],
)
def test_a_signal_among_the_imports_is_a_line_and_a_status(
    package: str, number: signal.Signals, status: int
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS_IN_ITS_IMPORTS.format(package=package)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == status
    assert said.startswith("error: ")
    assert said.endswith("the same command goes on\n")
    assert said.count("\n") == 1


def test_what_is_not_told_to_end_returns_what_it_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert started(lambda: 3) == 3


def ranks_of_torchrun(folder: Path, monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    """As torchrun tells a rank where its errors go: a folder a rank, in one of this start."""
    (folder / "attempt_0" / str(rank)).mkdir(parents=True, exist_ok=True)
    path = folder / "attempt_0" / str(rank) / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))


def test_who_is_ended_beside_a_rank_that_said_why_adds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    ranks_of_torchrun(tmp_path, monkeypatch, 0)
    starting._leave(signal.SIGTERM, None)
    assert capsys.readouterr().err.startswith("error: told to end by SIGTERM: ")
    ranks_of_torchrun(tmp_path, monkeypatch, 1)
    starting._leave(signal.SIGTERM, None)
    assert capsys.readouterr().err == ""
    assert left == [STARTS_AGAIN] * 2


def test_of_several_ranks_one_says_a_line_and_each_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for rank in range(4):
        ranks_of_torchrun(tmp_path, monkeypatch, rank)
        say_once("error: bad profile")
        say_once(f"error: rank {rank} has no disk")
    said = capsys.readouterr().err.splitlines()
    own = [f"error: rank {rank} has no disk" for rank in range(4)]
    assert said == ["error: bad profile", *own]


@pytest.mark.parametrize("error_file", ["", "/dev/null", "/gone/attempt_0/0/error.json"])
def test_where_ranks_share_no_folder_each_speaks(
    error_file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", error_file)
    for _ in range(2):
        say_once("error: bad profile")
    assert capsys.readouterr().err.count("bad profile") == 2

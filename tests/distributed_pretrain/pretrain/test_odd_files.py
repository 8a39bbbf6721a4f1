"""What stands where a run's files should be: named for what it is, and nothing waits for it."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from distributed_pretrain.__main__ import main
from tests.tiny import short_run as short

pytestmark = [pytest.mark.xdist_group("short_run"), pytest.mark.timeout(120)]

OTHERS: dict[str, Callable[[Path], object]] = {
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a link that leads to itself": lambda path: path.symlink_to(path.name),
    "a link to /nowhere/else, where nothing is": lambda path: path.symlink_to("/nowhere/else"),
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


def put_in_place_of(path: Path, make: Callable[[Path], object]) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    make(path)


@pytest.mark.parametrize("name", ["config.yaml", "identity.json", "metrics.jsonl", "starts.jsonl"])
@pytest.mark.parametrize("what", OTHERS)
def test_what_is_no_file_is_called_what_it_is(
    what: str, name: str, run: Path, tiny_profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_in_place_of(run / name, OTHERS[what])
    assert short.train(tiny_profile, run) == 2
    assert short.the_error(capsys.readouterr().err) == (
        f"error: {run / name}: {what}, and should be a file: move it away"
    )
    if name == "config.yaml":
        assert main(["evaluate", str(run), "split=validate"]) == 2
        assert f"{run / name}: {what}, and" in short.the_error(capsys.readouterr().err)


def test_a_socket_is_called_one(
    run: Path,
    tiny_profile: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(run)  # a socket's path may have a hundred letters
    Path("config.yaml").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("config.yaml")
    assert short.train(tiny_profile, run) == 2
    assert "config.yaml: a socket, and should be" in short.the_error(capsys.readouterr().err)


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_no_tokenizer_is_refused(
    what: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_in_place_of(run / "tokenizer" / "tokenizer.json", OTHERS[what])
    assert main(["evaluate", str(run), "split=validate"]) == 2
    assert "tokenizer.json: " in short.the_error(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: path.write_text("moved"), "it is a file"),
        (os.mkfifo, "it is a file"),
        (OTHERS["a device"], "it is a file"),
        (OTHERS["a link that leads to itself"], "it is a link to tokenizer, which is not there"),
        (
            OTHERS["a link to /nowhere/else, where nothing is"],
            "it is a link to /nowhere/else, which is not there",
        ),
    ],
)
def test_what_is_no_folder_for_the_tokenizer_is_called_what_it_is(
    make: Callable[[Path], object], what: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_in_place_of(run / "tokenizer", make)
    assert main(["evaluate", str(run), "split=validate"]) == 2
    said = f"error: {run / 'tokenizer'}: {what}, and should be a folder: move it away, and "
    assert short.the_error(capsys.readouterr().err).startswith(said)


CHECKPOINTS = (
    "model.safetensors",
    "optimizer.safetensors",
    "optimizer.json",
    "state.json",
    "COMPLETE",
)


@pytest.mark.parametrize(("what", "name"), list(zip(OTHERS, CHECKPOINTS, strict=True)))
def test_what_is_no_file_of_a_checkpoint_is_a_damaged_checkpoint(
    what: str, name: str, run: Path, tiny_profile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_in_place_of(run / "checkpoints" / "step_00000005" / name, OTHERS[what])
    with short.started(tiny_profile, run) as trainer:
        assert trainer.state.step == 4
    assert "warning: checkpoint " in capsys.readouterr().err

"""Processes that end while a checkpoint is being written: what is left is whole."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from distributed_pretrain.run_folder.checkpoint import load_checkpoint
from distributed_pretrain.run_folder.checkpoint_writer import CheckpointWriter
from tests.distributed_pretrain.run_folder.checkpoints import checkpoint, newest_of, numbers_in
from tests.forks import fork
from tests.paths import ROOT

ENDS_WITHOUT_CLOSING = """
import sys
from pathlib import Path

from distributed_pretrain.run_folder.checkpoint_writer import CheckpointWriter
from tests.distributed_pretrain.run_folder.checkpoints import checkpoint

writer = CheckpointWriter(Path(sys.argv[1]), keep=2)
writer.save(checkpoint(1, numbers=5_000_000), is_best=False)
"""


def test_a_program_that_ends_without_closing_still_writes_its_last_save(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ENDS_WITHOUT_CLOSING, str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    assert numbers_in(load_checkpoint(tmp_path / "last")) == {1}


def killed_at_each_call(folder: Path) -> None:
    """Print how many calls to the file system the third save makes; each is one process's last."""
    calls, status = 0, -1
    while status:
        calls += 1
        process = os.fork()
        if process == 0:
            save_and_die(folder / f"{calls:03d}", calls)
        status = os.waitpid(process, 0)[1]
    print(calls, flush=True)


def save_and_die(folder: Path, calls_left: int) -> NoReturn:
    writer = CheckpointWriter(folder, keep=1)
    for step in (1, 2):
        writer.save(checkpoint(step), is_best=step == 1)
        writer.wait()

    def die(event: str, arguments: object) -> None:
        nonlocal calls_left
        if event.split(".")[0] in {"open", "os", "shutil"} and str(folder) in str(arguments):
            calls_left -= 1
            if calls_left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(die)
    writer.save(checkpoint(3), is_best=True)
    writer.wait()
    os._exit(0)


def test_a_kill_at_any_call_to_the_file_system_leaves_whole_checkpoints(tmp_path: Path) -> None:
    """One process for each call that the third save makes, killed -9 right before it."""
    process = fork(killed_at_each_call, tmp_path / "runs", files=tmp_path / "calls")
    assert process.wait() == 0, process.said
    folders = sorted((tmp_path / "runs").iterdir())
    assert len(folders) == int(process.printed)
    found = []
    for folder in folders:
        path, damaged = newest_of(folder)
        assert path is not None, f"nothing left in {folder}"
        assert not damaged
        loaded = load_checkpoint(path)
        assert numbers_in(loaded) == {loaded.state.step}
        found.append(loaded.state.step)
        assert load_checkpoint(folder / "best").state.step in {1, loaded.state.step}
        writer = CheckpointWriter(folder, keep=1)
        writer.save(checkpoint(4), is_best=True)
        writer.close()
        assert {path.name for path in folder.iterdir()} == {"best", "last", "step_00000004"}
    assert found == sorted(found)
    assert found.count(2) > 10, "kills before the checkpoint was whole"
    assert found.count(3) > 5, "kills after it"


def save_without_end(folder: Path) -> None:
    writer = CheckpointWriter(folder, keep=2)
    for step in itertools.count(1):
        writer.save(checkpoint(step, numbers=8_000_000), is_best=False)
        writer.wait()
        print(step, flush=True)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
def test_a_kill_in_the_middle_of_a_file_leaves_the_earlier_checkpoint(
    tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "checkpoints"
    process = fork(save_without_end, folder, files=tmp_path / "steps")
    deadline = time.monotonic() + 120

    def wait_until(reached: Callable[[], bool]) -> None:
        while not reached():
            assert time.monotonic() < deadline, process.said
            assert process.poll() is None, process.said
            time.sleep(0.001)

    wait_until(lambda: bool(process.printed))
    whole = (folder / "step_00000001" / name).stat().st_size
    wait_until(lambda: any(0 < size < whole for size in sizes_of_partial(folder, name)))
    process.kill()
    assert sizes_of_partial(folder, name), "the kill came too late"
    path, damaged = newest_of(folder)
    assert path is not None
    assert not damaged
    loaded = load_checkpoint(path)
    assert loaded.state.step >= max(map(int, process.printed.split()))
    assert numbers_in(loaded) == {loaded.state.step}


def sizes_of_partial(folder: Path, name: str) -> list[int]:
    """Bytes so far of a file that is being written."""
    sizes = []
    for path in folder.glob(f"step_*.partial/{name}"):
        try:
            sizes.append(path.stat().st_size)
        except FileNotFoundError:  # whole and renamed since
            continue
    return sizes

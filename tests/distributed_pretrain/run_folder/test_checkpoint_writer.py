from __future__ import annotations

import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from torch import Tensor

from data_shards.errors import InputError
from distributed_pretrain.run_folder.checkpoint import (
    Checkpoint,
    TrainingState,
    find_latest_intact,
    load_checkpoint,
)
from distributed_pretrain.run_folder.checkpoint_writer import CheckpointSnapshot, CheckpointWriter
from tests.forks import fork
from tests.paths import ROOT


def checkpoint(step: int, *, numbers: int = 3) -> Checkpoint:
    """Every number in it is `step`."""
    weight = torch.full((numbers,), float(step))
    return Checkpoint(
        state=TrainingState(step=step),
        config={"layers": [step]},
        model={"weight": weight, "tied": weight, "half": weight.bfloat16()},
        optimizer={
            "state": {0: {"step": torch.tensor(float(step)), "exp_avg": weight.clone()}},
            "param_groups": [{"betas": (0.9, float(step)), "params": [0]}],
        },
    )


def numbers_in(saved: Checkpoint) -> set[float]:
    """All of them, each once."""
    moments = saved.optimizer["state"][0]
    numbers = {float(saved.state.step), *saved.config["layers"]}
    numbers.add(saved.optimizer["param_groups"][0]["betas"][1])
    for tensor in (*saved.model.values(), *moments.values()):
        numbers.update(tensor.float().unique().tolist())
    return numbers


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[CheckpointWriter]:
    writer = CheckpointWriter(tmp_path, keep=2)
    yield writer
    writer.close()


@pytest.fixture
def full_disk() -> Iterator[None]:
    """The limit on file sizes stands in for it: the kernel refuses the write alike."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_changes_after_the_call_does_not_reach_the_checkpoint(
    writer: CheckpointWriter, tmp_path: Path
) -> None:
    """Large enough that the thread is still writing when everything is overwritten."""
    for step in (1, 2, 3):
        saved = checkpoint(step, numbers=2_000_000)
        writer.save(saved, is_best=False)
        for tensor in (*saved.model.values(), *saved.optimizer["state"][0].values()):
            tensor.fill_(-1.0)
        saved.state.step = -1
        saved.config["layers"][0] = -1
        saved.optimizer["param_groups"][0]["betas"] = (0.0, -1.0)
        writer.wait()
        assert numbers_in(load_checkpoint(tmp_path / "last")) == {step}


def test_links_and_old_checkpoints_are_as_of_a_save_at_once(
    writer: CheckpointWriter, tmp_path: Path
) -> None:
    for step in (1, 2, 3, 4):
        writer.save(checkpoint(step), is_best=step == 1)
    writer.wait()
    names = sorted(path.name for path in tmp_path.iterdir() if not path.is_symlink())
    assert names == ["step_00000001", "step_00000003", "step_00000004"]
    assert (tmp_path / "last").resolve().name == "step_00000004"
    assert (tmp_path / "best").resolve().name == "step_00000001"


def test_training_waits_for_the_disk_only_before_the_next_save(
    writer: CheckpointWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk_is_ready = threading.Event()
    monkeypatch.setattr(os, "fsync", lambda _: disk_is_ready.wait(60))
    writer.save(checkpoint(1), is_best=False)
    saving = [writer.is_saving]
    next_save = threading.Thread(target=lambda: writer.save(checkpoint(2), is_best=False))
    next_save.start()
    next_save.join(0.2)
    assert next_save.is_alive()
    disk_is_ready.set()
    next_save.join(60)
    writer.wait()
    saving.append(writer.is_saving)
    assert saving == [True, False]
    assert load_checkpoint(tmp_path / "step_00000001").state.step == 1
    assert load_checkpoint(tmp_path / "last").state.step == 2


@pytest.mark.parametrize("call", ["wait", "save", "close"])
@pytest.mark.usefixtures("full_disk")
def test_a_failure_comes_out_of_the_next_call_whichever_it_is(tmp_path: Path, call: str) -> None:
    writer = CheckpointWriter(tmp_path, keep=2)
    writer.save(checkpoint(1), is_best=False)
    calls = {
        "wait": writer.wait,
        "close": writer.close,
        "save": lambda: writer.save(checkpoint(2), is_best=False),
    }
    with pytest.raises(InputError, match=r"step_00000001: not written .File too large"):
        calls[call]()
    writer.close()  # told once
    assert not list(tmp_path.iterdir())


def test_after_a_failure_the_next_save_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    writer = CheckpointWriter(folder, keep=2)
    folder.write_text("in the way")
    writer.save(checkpoint(1), is_best=False)
    with pytest.raises(FileExistsError):
        writer.wait()
    folder.unlink()
    writer.save(checkpoint(2), is_best=False)
    writer.close()
    assert numbers_in(load_checkpoint(folder / "last")) == {2}


def test_memory_is_used_again_and_tied_weights_are_copied_once() -> None:
    snapshot = CheckpointSnapshot()

    def addresses(saved: Checkpoint) -> list[int]:
        moments = saved.optimizer["state"][0].values()
        return [tensor.data_ptr() for tensor in (*saved.model.values(), *moments)]

    first = addresses(snapshot.take(checkpoint(1)))
    assert addresses(snapshot.take(checkpoint(2))) == first
    assert first[0] == first[1]  # weight and tied
    assert len(set(first)) == len(first) - 1


def test_weights_tied_in_one_save_and_not_in_the_next_are_kept_apart() -> None:
    snapshot = CheckpointSnapshot()

    def taken(model: dict[str, Tensor]) -> list[float]:
        saved = snapshot.take(Checkpoint(TrainingState(), {}, model, {}))
        return [float(tensor) for tensor in saved.model.values()]

    one, two = torch.tensor(1.0), torch.tensor(2.0)
    assert taken({"a": one, "b": one}) == [1.0, 1.0]
    assert taken({"a": one, "b": two}) == [1.0, 2.0]
    assert taken({"a": two, "b": two}) == [2.0, 2.0]
    assert taken({"b": two, "a": one}) == [2.0, 1.0]


def test_a_copy_keeps_the_layout_of_its_source() -> None:
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    saved = CheckpointSnapshot().take(Checkpoint(TrainingState(), {}, {"w": weight}, {"m": weight}))
    assert saved.model["w"].stride() == saved.optimizer["m"].stride() == weight.stride()
    assert torch.equal(saved.model["w"], weight)


@pytest.mark.gpu
def test_a_snapshot_from_a_gpu_is_whole_and_page_locked() -> None:
    source = checkpoint(5, numbers=10_000_000)
    on_gpu = {name: tensor.cuda() for name, tensor in source.model.items()}
    snapshot = CheckpointSnapshot()
    for step in (5.0, 6.0):
        for tensor in on_gpu.values():
            tensor.fill_(step)
        saved = snapshot.take(Checkpoint(source.state, source.config, on_gpu, source.optimizer))
        assert all(tensor.is_pinned() for tensor in saved.model.values())
        assert all(bool((tensor == step).all()) for tensor in saved.model.values())


@pytest.mark.skipif(sys.platform != "linux", reason="priorities of threads are Linux's")
def test_the_writing_thread_gives_way_and_no_other_does(
    writer: CheckpointWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    seen = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append(priority()))
    own = priority()
    writer.save(checkpoint(1), is_best=False)
    writer.wait()
    assert set(seen) == {min(own + 10, 19)}
    assert priority() == own


ENDS_WITHOUT_CLOSING = """
import sys
from pathlib import Path

import test_checkpoint_writer as t

writer = t.CheckpointWriter(Path(sys.argv[1]), keep=2)
writer.save(t.checkpoint(1, numbers=5_000_000), is_best=False)
"""


def test_a_program_that_ends_without_closing_still_writes_its_last_save(tmp_path: Path) -> None:
    places = {"PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"}
    command = [sys.executable, "-c", ENDS_WITHOUT_CLOSING, str(tmp_path)]
    subprocess.run(command, env=os.environ | places, check=True, timeout=120)
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
        path, damaged = find_latest_intact(folder)
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
    path, damaged = find_latest_intact(folder)
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

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from data_shards.errors import InputError
from distributed_pretrain.run_folder.checkpoint import Checkpoint, load_checkpoint
from distributed_pretrain.run_folder.checkpoint_writer import CheckpointSnapshot, CheckpointWriter
from distributed_pretrain.run_folder.intact import TrainingState
from tests.distributed_pretrain.run_folder.checkpoints import checkpoint, numbers_in
from tests.full_disk import full_disk


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[CheckpointWriter]:
    writer = CheckpointWriter(tmp_path, keep=2)
    yield writer
    writer.close()


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
def test_a_failure_comes_out_of_the_next_call_whichever_it_is(tmp_path: Path, call: str) -> None:
    writer = CheckpointWriter(tmp_path, keep=2)
    calls = {
        "wait": writer.wait,
        "close": writer.close,
        "save": lambda: writer.save(checkpoint(2), is_best=False),
    }
    with full_disk():
        writer.save(checkpoint(1), is_best=False)
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

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from data_shards.records.errors import InputError
from distributed_pretrain.checkpoint import (
    Checkpoint,
    DamagedCheckpointError,
    TrainingState,
    find_latest_intact,
    first_difference,
    load_checkpoint,
    save_checkpoint,
)


def checkpoint(step: int) -> Checkpoint:
    weight = torch.nn.Parameter(torch.full((3,), float(step)))
    optimizer = torch.optim.AdamW([weight], lr=0.1)
    weight.sum().backward()
    optimizer.step()
    return Checkpoint(
        state=TrainingState(step=step, samples_consumed=8 * step, best_score=0.5),
        config={"seed": 1},
        model={"weight": weight.detach()},
        optimizer=optimizer.state_dict(),
    )


def test_a_checkpoint_reads_back_equal(tmp_path: Path) -> None:
    saved = checkpoint(4)
    path = save_checkpoint(tmp_path, saved, keep=2, is_best=False)
    loaded = load_checkpoint(path)
    assert loaded.state == saved.state
    assert loaded.config == saved.config
    assert torch.equal(loaded.model["weight"], saved.model["weight"])
    moments = loaded.optimizer["state"][0]["exp_avg"]
    assert torch.equal(moments, saved.optimizer["state"][0]["exp_avg"])


def test_last_and_best_are_kept_and_older_ones_dropped(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save_checkpoint(tmp_path, checkpoint(step), keep=2, is_best=step == 1)
    names = sorted(path.name for path in tmp_path.iterdir() if not path.is_symlink())
    assert names == ["step_00000001", "step_00000003", "step_00000004"]
    assert (tmp_path / "last").resolve().name == "step_00000004"
    assert (tmp_path / "best").resolve().name == "step_00000001"


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "state.json"])
def test_a_flipped_bit_is_refused_by_name_and_the_previous_one_is_used(
    tmp_path: Path, name: str
) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, checkpoint(step), keep=5, is_best=False)
    victim = tmp_path / "step_00000002" / name
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    with pytest.raises(DamagedCheckpointError, match=name):
        load_checkpoint(tmp_path / "step_00000002")
    found, damaged = find_latest_intact(tmp_path)
    assert found == tmp_path / "step_00000001"
    assert list(damaged) == [tmp_path / "step_00000002"]


def test_a_folder_without_marker_or_file_is_not_used(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, checkpoint(step), keep=5, is_best=False)
    (tmp_path / "step_00000003" / "COMPLETE").unlink()
    (tmp_path / "step_00000002" / "optimizer.pt").unlink()
    found, damaged = find_latest_intact(tmp_path)
    assert found == tmp_path / "step_00000001"
    assert "no COMPLETE" in damaged[tmp_path / "step_00000003"]
    assert "optimizer.pt is missing" in damaged[tmp_path / "step_00000002"]


def test_a_full_disk_leaves_the_previous_checkpoint_and_no_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, checkpoint(1), keep=2, is_best=True)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(InputError, match=r"step_00000002: not written .No space left.*free some"):
        save_checkpoint(tmp_path, checkpoint(2), keep=2, is_best=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "last", "step_00000001"]
    assert load_checkpoint(tmp_path / "last").state.step == 1


def test_remains_of_a_kill_while_saving_do_not_matter(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1), keep=2, is_best=False)
    shutil.copytree(tmp_path / "step_00000001", tmp_path / "step_00000002.partial")
    assert find_latest_intact(tmp_path) == (tmp_path / "step_00000001", {})
    save_checkpoint(tmp_path, checkpoint(2), keep=2, is_best=False)
    assert load_checkpoint(tmp_path / "last").state.step == 2


def test_the_first_difference_of_two_configs_is_named() -> None:
    old = {"a": {"b": 1, "c": [1, 2]}, "d": 0}
    assert first_difference(old, {"a": {"b": 1, "c": [1, 2]}, "d": 0}) is None
    assert first_difference(old, {"a": {"b": 1, "c": [1, 3]}, "d": 0}) == (
        "a.c ([1, 2] then, [1, 3] now)"
    )

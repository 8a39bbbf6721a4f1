from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from data_shards.errors import InputError
from distributed_pretrain.run_folder.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from distributed_pretrain.run_folder.intact import DamagedCheckpointError, TrainingState
from tests.distributed_pretrain.run_folder.checkpoints import newest_of
from tests.full_disk import full_disk
from tests.tiny.short_run import rewrite


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


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "optimizer.json", "state.json"]
)
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
    found, damaged = newest_of(tmp_path)
    assert found == tmp_path / "step_00000001"
    assert list(damaged) == [tmp_path / "step_00000002"]


@pytest.mark.parametrize("name", ["step", "samples_consumed", "rewinds"])
@pytest.mark.parametrize("value", [-1, 4.0, "4", True, None, float("nan"), [4]])
def test_counters_that_are_no_counts_are_named(tmp_path: Path, name: str, value: object) -> None:
    path = save_checkpoint(tmp_path, checkpoint(4), keep=2, is_best=False)
    document = json.loads((path / "state.json").read_text())
    document["state"][name] = value
    rewrite(path / "state.json", lambda _: json.dumps(document).encode())
    with pytest.raises(DamagedCheckpointError, match=rf"state\.json is damaged .state\.{name}"):
        load_checkpoint(path)


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999"])
def test_a_score_that_is_not_finite_is_named(tmp_path: Path, value: str) -> None:
    path = save_checkpoint(tmp_path, checkpoint(4), keep=2, is_best=False)
    rewrite(path / "state.json", lambda old: old.replace(b"0.5", value.encode()))
    with pytest.raises(DamagedCheckpointError, match=r"state\.best_score"):
        load_checkpoint(path)


def test_a_folder_without_marker_or_file_is_not_used(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, checkpoint(step), keep=5, is_best=False)
    (tmp_path / "step_00000003" / "COMPLETE").unlink()
    (tmp_path / "step_00000002" / "optimizer.json").unlink()
    found, damaged = newest_of(tmp_path)
    assert found == tmp_path / "step_00000001"
    assert "no COMPLETE" in damaged[tmp_path / "step_00000003"]
    assert "optimizer.json is missing" in damaged[tmp_path / "step_00000002"]


def test_a_full_disk_leaves_the_previous_checkpoint_and_no_remains(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1), keep=2, is_best=True)
    with (
        full_disk(left_bytes=100),
        pytest.raises(InputError, match=r"step_00000002: not written .File too large.*free"),
    ):
        save_checkpoint(tmp_path, checkpoint(2), keep=2, is_best=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "last", "step_00000001"]
    assert load_checkpoint(tmp_path / "last").state.step == 1


REFUSED = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EEXIST: "something else is in its place",
    errno.EISDIR: "something else is in its place",
    errno.ENOENT: "the folder is not there",
    errno.EACCES: "let this user read and write there",
    errno.EROFS: "write to another folder",
    errno.EIO: "check the disk and the path",
}


@pytest.mark.parametrize(("number", "remedy"), REFUSED.items())
def test_the_remedy_is_that_of_the_refusal(
    number: int, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    said = rf"step_00000001: not written \({os.strerror(number)}\): {remedy}"
    with pytest.raises(InputError, match=said) as caught:
        save_checkpoint(tmp_path, checkpoint(1), keep=2, is_best=False)
    assert ("free some space" in str(caught.value)) == (remedy == "free some space")
    assert not list(tmp_path.iterdir())


def test_remains_of_a_kill_while_saving_do_not_matter(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1), keep=2, is_best=False)
    shutil.copytree(tmp_path / "step_00000001", tmp_path / "step_00000002.partial")
    assert newest_of(tmp_path) == (tmp_path / "step_00000001", {})
    shutil.copytree(tmp_path / "step_00000001", tmp_path / "step_00000009.partial")
    save_checkpoint(tmp_path, checkpoint(2), keep=2, is_best=False)
    assert load_checkpoint(tmp_path / "last").state.step == 2
    assert not list(tmp_path.glob("*.partial"))


def test_a_step_saved_again_replaces_the_earlier_one(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1), keep=1, is_best=False)
    again = replace(checkpoint(1), config={"seed": 2})
    save_checkpoint(tmp_path, again, keep=1, is_best=False)
    assert load_checkpoint(tmp_path / "last").config == {"seed": 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last", "step_00000001"]


def test_the_earlier_one_returns_if_a_kill_came_while_a_step_was_replaced(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1), keep=2, is_best=False)
    (tmp_path / "step_00000001").rename(tmp_path / "step_00000001.replaced")
    save_checkpoint(tmp_path, checkpoint(2), keep=2, is_best=False)
    assert load_checkpoint(tmp_path / "step_00000001").state.step == 1


def test_no_file_of_a_checkpoint_is_a_pickle(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, checkpoint(1), keep=1, is_best=False)
    assert sorted(file.name for file in path.iterdir()) == [
        "COMPLETE",
        "model.safetensors",
        "optimizer.json",
        "optimizer.safetensors",
        "state.json",
    ]
    assert set(load_file(path / "optimizer.safetensors")) == {
        "state.0.exp_avg",
        "state.0.exp_avg_sq",
        "state.0.step",
    }


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD])
def test_an_optimizer_goes_on_from_a_checkpoint_as_if_never_stopped(
    tmp_path: Path, kind: type[torch.optim.Adam | torch.optim.SGD]
) -> None:
    """Two groups, one with a tensor for its rate, and weights in two layouts."""
    torch.manual_seed(0)
    convolution, linear = nn.Conv2d(2, 4, 3).double(), nn.Linear(16, 1).double()
    convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last)
    model = nn.Sequential(convolution, nn.Flatten(), linear)
    groups: list[dict[str, Any]] = [
        {"params": list(convolution.parameters()), "lr": torch.tensor(0.02)},
        {"params": list(linear.parameters()), "weight_decay": 0.1},
    ]
    optimizer = kind(groups, lr=0.01, foreach=False)
    images = torch.randn(3, 2, 4, 4, dtype=torch.float64)

    def step() -> None:
        optimizer.zero_grad()
        model(images).square().sum().backward()
        optimizer.step()

    step()
    saved = Checkpoint(TrainingState(step=1), {}, model.state_dict(), optimizer.state_dict())
    path = save_checkpoint(tmp_path, saved, keep=1, is_best=False)
    step()
    expected = [parameter.clone() for parameter in model.parameters()]
    loaded = load_checkpoint(path)
    model.load_state_dict(loaded.model)
    optimizer.load_state_dict(loaded.optimizer)
    step()
    for parameter, value in zip(model.parameters(), expected, strict=True):
        assert torch.equal(parameter, value)
    # Training on what was loaded did not write through to the files either.
    assert newest_of(tmp_path) == (path, {})


def test_numbers_tuples_and_types_of_an_optimizers_state_survive(tmp_path: Path) -> None:
    layout = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    state: dict[str, Any] = {
        "state": {
            0: {
                "step": torch.tensor(7.0),
                "exp_avg": layout,
                "count": torch.tensor([2**60], dtype=torch.int64),
                "half": torch.ones(3, dtype=torch.bfloat16),
                "flag": torch.tensor([True, False]),
                "empty": torch.zeros(0, 5),
            },
            5: {"rows": torch.arange(6.0).reshape(2, 3).T},
        },
        "param_groups": [
            {"lr": 0.1 + 0.2, "betas": (0.9, 0.999), "fused": None, "amsgrad": False, "params": [0]}
        ],
    }
    path = save_checkpoint(tmp_path, replace(checkpoint(1), optimizer=state), keep=1, is_best=False)
    loaded = load_checkpoint(path).optimizer
    assert loaded["param_groups"] == state["param_groups"]
    assert isinstance(loaded["param_groups"][0]["betas"], tuple)
    assert loaded["state"].keys() == {0, 5}
    for number, values in state["state"].items():
        for name, tensor in values.items():
            read = loaded["state"][number][name]
            assert read.dtype == tensor.dtype
            assert read.stride() == tensor.stride()
            assert torch.equal(read, tensor)


def test_tied_weights_and_views_are_each_written_whole(tmp_path: Path) -> None:
    storage = torch.arange(12.0)
    model = {"tied": storage, "again": storage, "view": storage[3:7], "column": storage[::4]}
    path = save_checkpoint(tmp_path, replace(checkpoint(1), model=model), keep=1, is_best=False)
    loaded = load_checkpoint(path).model
    assert loaded.keys() == model.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.items())


def test_what_json_cannot_hold_is_refused_by_its_path(tmp_path: Path) -> None:
    state = {"state": {0: {"device": torch.device("cpu")}}}
    with pytest.raises(TypeError, match=r"state\.0\.device: a device has no place"):
        save_checkpoint(tmp_path, replace(checkpoint(1), optimizer=state), keep=1, is_best=False)
    assert not list(tmp_path.iterdir())

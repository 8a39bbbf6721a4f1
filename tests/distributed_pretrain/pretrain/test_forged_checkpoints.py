"""Checkpoints whose checksums hold and whose content is not of a run: named, and never loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor

from distributed_pretrain.__main__ import main
from distributed_pretrain.run_folder.step_folders import STATE_FILE, step_folders
from tests.tiny import short_run as short

pytestmark = pytest.mark.xdist_group("short_run")

MODEL, OPTIMIZER, TREE = "model.safetensors", "optimizer.safetensors", "optimizer.json"
Tensors = dict[str, Tensor]
BEFORE = ["best", "last", "step_00000003", "step_00000004", "step_00000005.damaged"]


def tensors_of(change: Callable[[Tensors], object]) -> Callable[[bytes], bytes]:
    def rewritten(payload: bytes) -> bytes:
        tensors = load(payload)
        change(tensors)
        return save(tensors)

    return rewritten


def tree_of(change: Callable[[Any], object]) -> Callable[[bytes], bytes]:
    def rewritten(payload: bytes) -> bytes:
        tree = json.loads(payload)
        change(tree)
        return json.dumps(tree).encode()

    return rewritten


def first_moments(tensors: Tensors) -> str:
    return next(name for name in sorted(tensors) if name.endswith(".exp_avg"))


def shorten(tensors: Tensors) -> None:
    name = first_moments(tensors)
    tensors[name] = tensors[name].flatten()[:1].clone()


def halve(tensors: Tensors) -> None:
    name = first_moments(tensors)
    tensors[name] = tensors[name].half()


def make_step_long(tensors: Tensors) -> None:
    name = first_moments(tensors).replace("exp_avg", "step")
    tensors[name] = torch.ones(100)


def make_step_negative(tensors: Tensors) -> None:
    name = first_moments(tensors).replace("exp_avg", "step")
    tensors[name] = torch.tensor(-1.0)


def first_becomes(ending: str, value: float) -> Callable[[Tensors], None]:
    """One number of the first tensor whose name ends so."""

    def change(tensors: Tensors) -> None:
        name = next(name for name in sorted(tensors) if name.endswith(ending))
        tensors[name] = tensors[name].clone()
        tensors[name].view(-1)[-1] = value

    return change


def forget_moments(tree: Any) -> None:
    """An optimizer that has never made an update."""
    state = next(pair for pair in tree["dict"] if pair[0] == "state")
    state[1] = {"dict": []}


def first_tensor(tree: Any) -> Any:
    """The first leaf of the optimizer's tree that stands for a tensor."""
    if isinstance(tree, dict) and "stride" in tree:
        return tree if tree["stride"] else None
    inside = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return next((found for each in inside if (found := first_tensor(each)) is not None), None)


def other_weight(tensors: Tensors) -> None:
    name = next(name for name, each in sorted(tensors.items()) if each.ndim == 4)
    tensors[name] = tensors[name].double()


FORGED: dict[str, tuple[str, Callable[[bytes], bytes], str]] = {
    "a moment of one number": (OPTIMIZER, tensors_of(shorten), "no stride of a tensor"),
    "a moment of 16 bits": (OPTIMIZER, tensors_of(halve), "is float16"),
    "a step that is many": (OPTIMIZER, tensors_of(make_step_long), "no stride of a tensor"),
    "a step below zero": (OPTIMIZER, tensors_of(make_step_negative), "updated -1.0 times"),
    "a missing moment": (
        OPTIMIZER,
        tensors_of(lambda tensors: tensors.pop(first_moments(tensors))),
        "is damaged",
    ),
    "a stride without end": (
        TREE,
        tree_of(lambda tree: first_tensor(tree).update(stride=[10**12])),
        "no stride of a tensor",
    ),
    "an empty tree": (TREE, lambda _: b"{}", "is damaged"),
    "a tree of text": (TREE, lambda _: b'"Adam"', "not the state of an Adam"),
    "a deep tree": (TREE, lambda _: b"[" * 100_000, "too deep"),
    "an optimizer of noise": (OPTIMIZER, lambda payload: payload[:50], "no safetensors file"),
    "a model of noise": (MODEL, lambda payload: b"\xff" * len(payload), "no safetensors file"),
    "no update at all": (TREE, tree_of(forget_moments), "made 0 updates"),
    "a square below zero": (
        OPTIMIZER,
        tensors_of(first_becomes(".exp_avg_sq", -1e-12)),
        "'exp_avg_sq' of parameter 0 has numbers below zero",
    ),
    "a running mean of NaN": (
        MODEL,
        tensors_of(first_becomes(".running_mean", nan)),
        "running_mean' holds numbers that are not finite",
    ),
    "a batch more than steps": (
        STATE_FILE,
        tree_of(lambda document: document["state"].update(samples_consumed=48)),
        "samples_consumed=48 does not go with step=5",
    ),
    "weights of another type": (MODEL, tensors_of(other_weight), "is float64"),
    "weights of one more layer": (
        MODEL,
        tensors_of(lambda tensors: tensors.update(extra=torch.zeros(2))),
        "it has no 'extra'",
    ),
    "weights of one layer less": (
        MODEL,
        tensors_of(lambda tensors: tensors.pop(sorted(tensors)[0])),
        "is missing",
    ),
}


@pytest.mark.parametrize(("name", "change", "said"), FORGED.values(), ids=FORGED)
def test_forged_content_is_named_and_the_checkpoint_before_is_used(
    name: str,
    change: Callable[[bytes], bytes],
    said: str,
    short_run: Path,
    tiny_profile: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = short.cut_back(short_run, tmp_path / "run")
    short.rewrite(step_folders(run / "checkpoints")[-1] / name, change)
    if name == MODEL:
        assert main(["evaluate", str(run), "checkpoint=last", "split=validate"]) == 2
        assert said in short.the_error(capsys.readouterr().err)
    with short.started(tiny_profile, run) as trainer:
        assert trainer.state.step == 4
        assert sorted(each.name for each in (run / "checkpoints").iterdir()) == BEFORE
    (line,) = [
        each for each in capsys.readouterr().err.splitlines() if each.startswith("warning: check")
    ]
    assert said in line
    assert line.endswith("; going on from step_00000004")


def test_where_all_are_forged_nothing_is_trained_and_nothing_changed(
    short_run: Path, tiny_profile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after a release whose model is another: each would be set aside for it."""
    run = short.cut_back(short_run, tmp_path / "run")
    forge = tensors_of(lambda tensors: tensors.update(extra=torch.zeros(2)))
    for folder in step_folders(run / "checkpoints"):
        short.rewrite(folder / MODEL, forge)
    before = short.contents(run)
    assert short.train(tiny_profile, run) == 2
    line = short.the_error(capsys.readouterr().err)
    assert "no checkpoint to go on from (checkpoint " in line
    assert "step_00000005: not of this model: model: it has no 'extra'" in line
    assert short.contents(run) == before


def test_the_rates_of_a_forged_optimizer_are_not_used(
    short_run: Path, tiny_profile: Path, tmp_path: Path
) -> None:
    """The config decides them, which is held against the folder's."""
    run = short.cut_back(short_run, tmp_path / "run")

    def forge(payload: bytes) -> bytes:
        assert b'"weight_decay", 1e-06' in payload
        return payload.replace(b'"weight_decay", 1e-06', b'"weight_decay", 0.99')

    short.rewrite(step_folders(run / "checkpoints")[-1] / TREE, forge)
    assert short.train(tiny_profile, run) == 0
    assert short.same_weights(run, short_run)

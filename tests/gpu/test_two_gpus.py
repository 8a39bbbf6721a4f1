"""Two ranks, each on a GPU of its own: equal gradients, and how they end. On a CPU over gloo."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from distributed_pretrain.run_folder.folder import RunFolder
from tests.distributed.methods_on_ranks import (
    MethodCase,
    Result,
    run_method_case,
    run_method_cases,
)
from tests.distributed.ranks import Ranks, start_command, start_ranks
from tests.gpu.devices import need_gpus, on_each_device, only_on_a_gpu
from tests.tiny.methods import PROFILES

# One worker: ranks have a time to keep.
pytestmark = pytest.mark.xdist_group("gpu")

RANKS = 2
LOST = 75
SECONDS_TO_END = 25
# What is in no test of gloo's ranks: only one of them has laterals. Packed as on any GPU.
LATERALS_OF_ONE = MethodCase("phantom_limitr", "sync", packed=True, laterals_of_one_rank=True)
EVERY = [
    MethodCase(name, norm, packed=True)
    for name in PROFILES
    if name.startswith("phantom_") and name != "phantom_untrained"
    for norm in ("group", "sync")
]


def environment(device: torch.device) -> dict[str, str]:
    return {"ACCELERATE_USE_CPU": str(device.type == "cpu").lower()}


def results_of(
    run: Callable[[list[MethodCase], Path], None],
    cases: list[MethodCase],
    device: torch.device,
    folder: Path,
) -> dict[MethodCase, Result]:
    need_gpus(device, RANKS)
    variables = environment(device)
    start_ranks(
        run, cases, folder, world_size=RANKS, folder=folder, environment=variables
    ).complete()
    found: dict[MethodCase, Result] = torch.load(folder / "results.pt", weights_only=False)
    return found


def assert_as_one_process(found: dict[MethodCase, Result]) -> None:
    for case, ours in found.items():
        wanted = run_method_case(case)
        for part, values in wanted.items():
            largest = max(float(value.abs().max()) for value in values.values())
            for name, value in values.items():
                error = float((ours[part][name] - value).abs().max())
                assert error < 1e-9 * largest, f"{case}: {part}: {name}: {error / largest:.1e}"


def with_one_visible_gpu(cases: list[MethodCase], folder: Path) -> None:
    """As launchers bind them: each rank finds its own as the first."""
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ["RANK"]
    run_method_cases(cases, folder)
    assert torch.cuda.device_count() == 1


@on_each_device
def test_a_rank_without_laterals_trains_as_one_process(
    device: torch.device, tmp_path: Path
) -> None:
    assert_as_one_process(results_of(run_method_cases, [LATERALS_OF_ONE], device, tmp_path))


@only_on_a_gpu
def test_every_method_trains_as_one_process(device: torch.device, tmp_path: Path) -> None:
    assert_as_one_process(results_of(run_method_cases, EVERY, device, tmp_path))


@only_on_a_gpu
def test_ranks_that_see_one_gpu_each_train_as_one_process(
    device: torch.device, tmp_path: Path
) -> None:
    case = MethodCase("phantom_lovt", "sync", packed=True)
    assert_as_one_process(results_of(with_one_visible_gpu, [case], device, tmp_path))


def started(profile: Path, folder: Path, device: torch.device, *words: str, **faults: Any) -> Ranks:
    need_gpus(device, RANKS)
    return start_command(
        "pretrain",
        profile,
        f"run_folder={folder / 'run'}",
        "training.max_steps=12",
        *words,
        world_size=RANKS,
        folder=folder,
        faults=faults,
        environment=environment(device),
    )


@only_on_a_gpu
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_leaves_out_a_step_with_a_nan_on_one_rank(
    device: torch.device, stage: int, tiny_profile: Path, tmp_path: Path
) -> None:
    words = (
        f"training.distributed={{name: deepspeed, zero_stage: {stage}}}",
        "training.gradient_norms_every_steps=null",
    )
    ranks = started(tiny_profile, tmp_path, device, *words, bad_batches=[16])
    assert ranks.wait() == [0, 0], ranks.said(0)
    lines = [e for e in RunFolder(tmp_path / "run").read_metrics() if e["split"] == "train"]
    assert [line["skipped_steps"] for line in lines[:3]] == [0, 1, 1]


@only_on_a_gpu
def test_a_killed_rank_ends_the_other_with_one_line(
    device: torch.device, tiny_profile: Path, tmp_path: Path
) -> None:
    killed = {"number": signal.SIGKILL, "rank": 1, "step": 6}
    ranks = started(tiny_profile, tmp_path, device, signal=killed)
    assert ranks.processes[1].wait(200) == -signal.SIGKILL
    since = time.monotonic()
    assert ranks.processes[0].wait(200) == LOST
    assert time.monotonic() - since < SECONDS_TO_END
    said = ranks.said(0)
    assert said.count("rank 1 (") == 1
    assert "Traceback" not in said


@only_on_a_gpu
def test_a_signal_saves_and_the_same_command_goes_on(
    device: torch.device, tiny_profile: Path, tmp_path: Path
) -> None:
    stop = {"number": signal.SIGUSR2, "rank": 0, "step": 6}
    ranks = started(tiny_profile, tmp_path, device, signal=stop)
    assert ranks.wait() == [LOST, LOST], ranks.said(0)
    ranks = started(tiny_profile, tmp_path, device)
    assert ranks.wait() == [0, 0], ranks.said(0)
    assert "going on from step" in ranks.said(0)

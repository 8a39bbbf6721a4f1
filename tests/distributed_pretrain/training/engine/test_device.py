"""What a run asks of torch and its libraries before it starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from data_shards.errors import InputError
from distributed_pretrain.losses.contrastive import global_contrastive_loss
from distributed_pretrain.training.engine import device
from distributed_pretrain.training.engine.ddp import Engine
from distributed_pretrain.training.engine.device import (
    refuse_a_shared_gpu,
    refuse_missing_gpus,
    set_device_up,
)
from distributed_pretrain.training.flops import device_peak
from distributed_pretrain.training.settings import TrainingConfig


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without the variables; afterwards as other tests expect it."""
    for name in (
        "TORCH_NCCL_ASYNC_ERROR_HANDLING",
        "TORCH_NCCL_ENABLE_MONITORING",
        "PYTORCH_CUDA_ALLOC_CONF",
        "CUBLAS_WORKSPACE_CONFIG",
    ):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    yield
    set_device_up(TrainingConfig())


def test_products_and_convolutions_have_one_precision_which_the_peak_is_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA A100-SXM4-80GB")
    gpu, peaks = torch.device("cuda"), []
    for tf32 in (True, False):
        training = TrainingConfig(tf32=tf32)
        set_device_up(training)
        assert torch.backends.cuda.matmul.allow_tf32 is tf32
        assert torch.backends.cudnn.allow_tf32 is tf32
        peaks.append(device_peak(training, gpu))
    assert peaks == [156e12, 19.5e12]


def test_norms_share_statistics_among_a_divisor_of_the_ranks() -> None:
    of_four: Any = SimpleNamespace(world_size=4)
    with pytest.raises(InputError, match="norm_ranks=3 does not divide 4 ranks: choose a divisor"):
        Engine._share_statistics(of_four, 3)
    for ranks in (None, 8, 4):  # one group of all: there is nothing to form
        Engine._share_statistics(of_four, ranks)


def test_logits_of_the_global_loss_are_whole_and_the_precision_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_device_up(TrainingConfig())
    seen = []
    plain = torch.mm

    def watched(*args: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        seen.append(torch.backends.cuda.matmul.allow_tf32)
        return plain(*args, out=out)

    monkeypatch.setattr(torch, "mm", watched)
    rows = torch.randn(4, 8)
    global_contrastive_loss(rows, rows + 1)
    assert seen == [False]
    assert torch.backends.cuda.matmul.allow_tf32


def test_deterministic_asks_for_what_there_is_of_it_and_can_be_taken_back() -> None:
    set_device_up(TrainingConfig(deterministic=True))
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.deterministic
    assert not torch.backends.cuda.mem_efficient_sdp_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    set_device_up(TrainingConfig())
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cuda.mem_efficient_sdp_enabled()


def test_our_liveness_ends_ranks_unless_the_user_has_said_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCH_NCCL_ENABLE_MONITORING", "1")
    set_device_up(TrainingConfig())
    assert os.environ["TORCH_NCCL_ASYNC_ERROR_HANDLING"] == "0"
    assert os.environ["TORCH_NCCL_ENABLE_MONITORING"] == "1"


def test_a_launchers_mixed_precision_is_not_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """fp16 would scale gradients that are clipped, measured and checked as they are."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    engine = Engine(TrainingConfig())
    weight = nn.Parameter(torch.ones(3))
    engine.backward((2 * weight).sum())
    assert weight.grad is not None
    assert weight.grad.tolist() == [2, 2, 2]
    assert engine._accelerator.mixed_precision == "no"


GPU, ANY = TrainingConfig(device="cuda"), TrainingConfig()
# torch's own words.
TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU "
    "driver by downloading and installing a new version from the URL: http://www.nvidia.com"
)
NO_DRIVER = "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU"


@pytest.mark.parametrize("said", [TOO_OLD, NO_DRIVER])
def test_a_driver_that_is_missing_or_too_old_is_a_line(
    monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    def init() -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", init)
    first = said.partition(". ")[0]
    with pytest.raises(InputError, match="=any goes on on the CPU") as raised:
        refuse_missing_gpus(GPU)
    assert str(raised.value).startswith(f"training.device=cuda: {first}: ")
    assert "http" not in str(raised.value)


def test_a_run_that_may_take_a_cpu_is_warned_of_a_gpu_that_it_cannot_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(device, "cuda_trouble", lambda: "the driver is too old")
    for there in (False, True):
        monkeypatch.setattr(device, "_DRIVER", tmp_path if there else tmp_path / "none")
        refuse_missing_gpus(ANY)
        assert ("the driver is too old" in capsys.readouterr().err) == there


@pytest.mark.parametrize(
    ("found", "local", "visible", "is_refused"),
    [
        (2, 1, None, False),
        (2, 2, None, True),
        (1, 1, None, True),
        # A launcher that binds one to each rank.
        (1, 3, "3", False),
    ],
)
def test_a_rank_without_a_gpu_is_a_line(
    monkeypatch: pytest.MonkeyPatch, found: int, local: int, visible: str | None, is_refused: bool
) -> None:
    monkeypatch.setattr(device, "cuda_trouble", lambda: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    monkeypatch.setenv("LOCAL_RANK", str(local))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if not is_refused:
        refuse_missing_gpus(ANY)
        return
    with pytest.raises(InputError, match=f"rank {local} of this machine has no GPU: {found} found"):
        refuse_missing_gpus(ANY)


def test_two_ranks_on_one_gpu_are_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bound to each rank or shared by all, it is the first and only one that a rank sees."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    refuse_a_shared_gpu(["node-1 a", "node-1 b", "node-2 a"])
    with pytest.raises(InputError) as raised:
        refuse_a_shared_gpu(["node-1 a", "node-1 b", "node-1 b"])
    line = str(raised.value)
    assert line.startswith("ranks 1 and 2 share one GPU (CUDA_VISIBLE_DEVICES=0): start as many")
    assert "\n" not in line

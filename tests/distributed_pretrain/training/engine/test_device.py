"""What a run asks of torch and its libraries before it starts."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from distributed_pretrain.losses.contrastive import global_contrastive_loss
from distributed_pretrain.training.engine.ddp import Engine
from distributed_pretrain.training.engine.device import set_device_up
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

"""What a run asks of torch, CUDA and NCCL: all of it here, before anything uses them."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from data_shards.errors import InputError, warn
from data_shards.starting import launcher_number
from distributed_pretrain.training.settings import TrainingConfig

# What autocast lowers products to, by `training.precision`.
LOWERED = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Of the environment, where the user has not said otherwise.
_VARIABLES = {
    # A peer that dies must end a rank by our own liveness, which saves nothing half and leaves with
    # a status that is requeued; NCCL's watchdog would abort the process without a line.
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",
    "TORCH_NCCL_ENABLE_MONITORING": "0",
    # Widths of reports and canvases differ from step to step.
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
}
# There where the kernel has NVIDIA's module.
_DRIVER = Path("/proc/driver/nvidia/version")
# cuBLAS is deterministic with a workspace of its own for each stream only.
_DETERMINISTIC = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


def set_device_up(training: TrainingConfig) -> None:
    """Set the precision of products, determinism, the allocator and NCCL's part in failures.

    `tf32` is for products and convolutions alike, so that `mfu` knows its peak. `deterministic`
    takes what torch has of deterministic kernels, and warns where it has none.
    """
    wanted = _VARIABLES | (_DETERMINISTIC if training.deterministic else {})
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    torch.backends.cuda.matmul.allow_tf32 = training.tf32
    torch.backends.cudnn.allow_tf32 = training.tf32
    torch.backends.cudnn.deterministic = training.deterministic
    torch.use_deterministic_algorithms(training.deterministic, warn_only=True)
    # Only the plain attention has a deterministic backward.
    for enable in (
        torch.backends.cuda.enable_flash_sdp,
        torch.backends.cuda.enable_mem_efficient_sdp,
    ):
        enable(not training.deterministic)


def refuse_missing_gpus(training: TrainingConfig) -> None:
    """Raise InputError where the run is to have GPUs and CUDA cannot be used, or they are too few.

    Where a run may take a CPU, it is warned of an NVIDIA GPU that is there and cannot be used.
    """
    trouble = cuda_trouble()
    if trouble is not None and training.device == "cuda":
        raise InputError(
            f"training.device=cuda: {trouble}: training.device=any goes on on the CPU, many times "
            "slower"
        )
    if trouble is not None:
        if _DRIVER.exists():
            warn(f"on the CPU: {trouble}")
        return
    if os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("true", "1"):
        return
    found, local = torch.cuda.device_count(), launcher_number("LOCAL_RANK") or 0
    # Where a launcher binds one to each rank, all see theirs as the first.
    bound = found == 1 and "CUDA_VISIBLE_DEVICES" in os.environ
    if local >= found and not bound:
        raise InputError(
            f"rank {local} of this machine has no GPU: {found} found: start as many ranks as there "
            "are GPUs"
        )


def refuse_a_shared_gpu(gpus: Sequence[str]) -> None:
    """Raise InputError where two ranks have the same of these: NCCL fails with such.

    Each sees it as its first where CUDA_VISIBLE_DEVICES names one GPU for all ranks.
    """
    for rank, gpu in enumerate(gpus):
        if (first := gpus.index(gpu)) != rank:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
            raise InputError(
                f"ranks {first} and {rank} share one GPU (CUDA_VISIBLE_DEVICES={visible}): start "
                "as many ranks as it names GPUs, or bind another one to each rank"
            )


def own_gpu(device: torch.device) -> str:
    """Which GPU of which machine that is, whatever number it has for this process."""
    return f"{platform.node()} {torch.cuda.get_device_properties(device).uuid}"


def best_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def cuda_trouble() -> str | None:
    """Why CUDA cannot be used, in torch's own words (no driver, one too old); None where it can."""
    if torch.cuda.is_available():
        return None
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        # What follows is where to get a driver, or another build.
        return str(error).splitlines()[0].partition(". ")[0].rstrip(".")
    return "no CUDA device was found"

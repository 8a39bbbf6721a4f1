"""What a run asks of torch, CUDA and NCCL: all of it here, before anything uses them."""

from __future__ import annotations

import os

import torch

from distributed_pretrain.training.settings import TrainingConfig

# Of the environment, where the user has not said otherwise.
_VARIABLES = {
    # A peer that dies must end a rank by our own liveness, which saves nothing half and leaves with
    # a status that is requeued; NCCL's watchdog would abort the process without a line.
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0",
    "TORCH_NCCL_ENABLE_MONITORING": "0",
    # Widths of reports and canvases differ from step to step.
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
}
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

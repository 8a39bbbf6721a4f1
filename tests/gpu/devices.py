"""Where a test of this folder runs: on a GPU (`make test-gpu`), and the same body on a CPU."""

from __future__ import annotations

import pytest
import torch

_CUDA = pytest.param("cuda", marks=pytest.mark.gpu)

# A CPU proves the test's own code in every run of the default suite, or with the slow tests.
on_each_device = pytest.mark.parametrize("device", ["cpu", _CUDA], indirect=True)
slow_on_a_cpu = pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=pytest.mark.slow), _CUDA], indirect=True
)
only_on_a_gpu = pytest.mark.parametrize("device", [_CUDA], indirect=True)


def need_gpus(device: torch.device, count: int) -> None:
    """Skip where a GPU is asked for and there are fewer."""
    if device.type == "cuda" and torch.cuda.device_count() < count:
        pytest.skip(f"needs {count} GPUs, found {torch.cuda.device_count()}")

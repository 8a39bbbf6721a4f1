"""Numbers on their way from a device to the host, read when the next step has been launched."""

from __future__ import annotations

import time

import torch
from jaxtyping import Float
from torch import Tensor


class LateNumbers:
    """A copy that is made behind what the device still has to do, without waiting for it.

    A host that reads a number at once launches nothing until the device has come that far, and
    then the device waits for the host. On a CPU the numbers are there from the beginning, and all
    else is the same.
    """

    def __init__(self, values: Float[Tensor, "*shape"]) -> None:
        self._host, self._on_host = values, time.perf_counter()
        self._arrival: torch.cuda.Event | None = None
        if values.is_cuda:
            self._host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._host.copy_(values, non_blocking=True)
            self._arrival = torch.cuda.Event()
            self._arrival.record()

    def read(self) -> tuple[Float[Tensor, "*shape"], float]:
        """(the numbers on the host, `time.perf_counter()` when they were seen there); waits."""
        if self._arrival is not None:
            self._arrival.synchronize()
            self._on_host, self._arrival = time.perf_counter(), None
        return self._host, self._on_host


def sent(values: list[float], device: torch.device) -> Float[Tensor, " values"]:
    """Numbers of the host on the device, in float64; nobody waits."""
    on_host = torch.tensor(values, dtype=torch.float64)
    if device.type == "cuda":
        on_host = on_host.pin_memory()
    return on_host.to(device, non_blocking=True)

"""The device of a test, which engines that it makes take too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from accelerate.state import AcceleratorState

from distributed_pretrain.training.engine.device import set_device_up
from distributed_pretrain.training.settings import TrainingConfig


@pytest.fixture
def device(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[torch.device]:
    name: str = request.param
    monkeypatch.setenv("ACCELERATE_USE_CPU", str(name == "cpu").lower())
    # Accelerate remembers the device of a process.
    AcceleratorState._reset_state(reset_partial_state=True)
    yield torch.device(name)
    AcceleratorState._reset_state(reset_partial_state=True)
    set_device_up(TrainingConfig())

"""As if there were another rank, for tensors that hold no numbers."""

from __future__ import annotations

import pytest
from torch import distributed

from distributed_pretrain import ranks


@pytest.fixture
def two_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the other rank sends is what no fake tensor holds."""
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(distributed, "all_gather_into_tensor", lambda *_: None)
    monkeypatch.setattr(distributed, "reduce_scatter_tensor", lambda *_: None)
    monkeypatch.setattr(ranks, "all_reduce", lambda values, **_: values)

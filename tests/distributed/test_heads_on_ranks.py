"""Heads on masks and boxes on two gloo ranks against one process with the whole batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.distributed.heads_on_ranks import HEADS, run_head, run_heads
from tests.distributed.ranks import start_ranks

pytestmark = pytest.mark.xdist_group("methods_on_ranks")


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tensor]]:
    folder = tmp_path_factory.mktemp("two")
    start_ranks(run_heads, folder, world_size=2, folder=folder).complete()
    results: dict[str, dict[str, Tensor]] = torch.load(folder / "results.pt")
    return results


@pytest.mark.parametrize("name", HEADS)
def test_two_ranks_train_as_one_process(name: str, two_ranks: dict[str, dict[str, Tensor]]) -> None:
    expected = run_head(name)
    figures = {part for part in expected if part.startswith("figure ")}
    assert figures >= {"figure total", "figure map" if name == "yolov3" else "figure dice"}
    assert two_ranks[name].keys() == expected.keys()
    for part, wanted in expected.items():
        scale = max(1.0, float(wanted.abs().max()))
        error = float((two_ranks[name][part] - wanted).abs().max())
        assert error < 1e-9 * scale, f"{part}: {error:.1e}"

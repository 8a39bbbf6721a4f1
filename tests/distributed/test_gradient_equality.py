"""One process with the whole batch against several with parts of it, for LoVT's full loss.

Every case takes ten optimizer steps on reports of one to three sentences with learnt temperatures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.distributed.gradients_on_ranks import (
    DDP,
    GROUP_NORMS,
    SYNC_NORMS,
    Case,
    run_case,
    run_cases,
)
from tests.distributed.ranks import start_ranks

# One worker: its fork server imports the product once.
pytestmark = pytest.mark.xdist_group("ranks")

EXACT = 1e-10
FLOAT32 = 1e-5
PAIR = GROUP_NORMS | {"pair_weight": 0.5}
MUTATIONS: tuple[Any, ...] = ("detached", "averaged", "scaled")
DDP_CASES = [
    Case("group norms", GROUP_NORMS, DDP),
    Case("sync norms", SYNC_NORMS, DDP),
    Case("chunked", GROUP_NORMS, DDP, chunk_size=5),
    Case("cached", GROUP_NORMS, DDP, micro_batches=3),
    Case("pair", PAIR, DDP),
    Case("pair, cached", PAIR, DDP, micro_batches=3),
    *(Case(f"{mutation} gather", GROUP_NORMS, DDP, mutation=mutation) for mutation in MUTATIONS),
]
ZERO_CASES = [
    Case(
        f"ZeRO {stage}, {micro_batches} micro-batches",
        GROUP_NORMS,
        {"name": "deepspeed", "zero_stage": stage},
        micro_batches=micro_batches,
        float64=False,
    )
    for stage in (0, 1, 2)
    for micro_batches in (1, 3)
]
# Towers, heads and temperatures are compared apart: a wrong scale of one hides in no other.
PARTS = ("image_encoder", "report_encoder", "pooling", "projection", "alignment", "temperature")


@pytest.fixture(scope="module")
def one_process() -> dict[str, dict[str, Any]]:
    return {
        "group": run_case(Case("group", GROUP_NORMS, DDP)),
        "sync": run_case(Case("sync", SYNC_NORMS, DDP)),
        "pair": run_case(Case("pair", PAIR, DDP)),
    }


def on_ranks(cases: list[Case], world_size: int, folder: Path) -> dict[str, dict[str, Any]]:
    start_ranks(run_cases, cases, folder, world_size=world_size, folder=folder).complete()
    results: dict[str, dict[str, Any]] = torch.load(folder / "results.pt")
    return results


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return on_ranks(DDP_CASES, 2, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def four_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return on_ranks(DDP_CASES[:2], 4, tmp_path_factory.mktemp("four"))


@pytest.fixture(scope="module")
def two_zero_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return on_ranks(ZERO_CASES, 2, tmp_path_factory.mktemp("zero"))


def relative_error(ours: dict[str, Tensor], expected: dict[str, Tensor], part: str) -> float:
    assert ours.keys() == expected.keys()
    names = [name for name in expected if part in name]
    assert names, part
    difference = torch.cat([(ours[name] - expected[name]).flatten() for name in names])
    return float(difference.norm() / torch.cat([expected[n].flatten() for n in names]).norm())


def assert_equal_training(ours: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    for part in PARTS:
        error = relative_error(ours["gradients"], expected["gradients"], part)
        assert error < tolerance, f"gradients of {part}: {error:.1e}"
        error = relative_error(ours["parameters"], expected["parameters"], part)
        assert error < tolerance, f"{part} after ten steps: {error:.1e}"
    losses, wanted = torch.tensor(ours["losses"]), torch.tensor(expected["losses"])
    assert float((losses - wanted).abs().max() / wanted.abs().max()) < tolerance


@pytest.mark.parametrize("name", ["group norms", "chunked", "cached"])
def test_two_ranks_train_as_one_process(
    name: str, two_ranks: dict[str, Any], one_process: dict[str, Any]
) -> None:
    assert_equal_training(two_ranks[name], one_process["group"], EXACT)


@pytest.mark.parametrize("name", ["pair", "pair, cached"])
def test_two_ranks_contrast_the_regions_of_all_images_as_one_process(
    name: str, two_ranks: dict[str, Any], one_process: dict[str, Any]
) -> None:
    assert_equal_training(two_ranks[name], one_process["pair"], EXACT)
    assert two_ranks[name]["norms"] == pytest.approx(one_process["pair"]["norms"], rel=1e-9)
    assert "pair" in two_ranks[name]["norms"]


def test_two_ranks_share_their_norms_statistics(
    two_ranks: dict[str, Any], one_process: dict[str, Any]
) -> None:
    assert_equal_training(two_ranks["sync norms"], one_process["sync"], EXACT)


@pytest.mark.parametrize(("name", "norms"), [("group norms", "group"), ("sync norms", "sync")])
def test_four_ranks_train_as_one_process(
    name: str, norms: str, four_ranks: dict[str, Any], one_process: dict[str, Any]
) -> None:
    assert_equal_training(four_ranks[name], one_process[norms], EXACT)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_broken_gather_has_the_same_loss_and_another_gradient(
    mutation: str, two_ranks: dict[str, Any], one_process: dict[str, Any]
) -> None:
    ours, expected = two_ranks[f"{mutation} gather"], one_process["group"]
    assert ours["losses"][0] == pytest.approx(expected["losses"][0], rel=1e-12)
    with pytest.raises(AssertionError, match="gradients of image_encoder"):
        assert_equal_training(ours, expected, EXACT)
    assert relative_error(ours["gradients"], expected["gradients"], "image_encoder") > 0.01


@pytest.mark.parametrize("case", ZERO_CASES, ids=lambda case: case.name)
def test_two_ranks_with_deepspeed_train_as_one_process(
    case: Case, two_zero_ranks: dict[str, Any], one_process: dict[str, Any]
) -> None:
    assert_equal_training(two_zero_ranks[case.name], one_process["group"], FLOAT32)
    norms = two_zero_ranks[case.name]["norms"]
    assert norms == pytest.approx(one_process["group"]["norms"], rel=10 * FLOAT32)


def test_the_norms_of_each_terms_gradient_are_those_of_one_process(
    two_ranks: dict[str, Any], one_process: dict[str, Any]
) -> None:
    expected = one_process["group"]["norms"]
    assert set(expected) == {"global", "local_image", "local_report"}
    for name in ("group norms", "cached"):
        assert two_ranks[name]["norms"] == pytest.approx(expected, rel=1e-9)


def test_micro_batches_in_one_process_train_as_the_whole_batch(
    one_process: dict[str, Any],
) -> None:
    ours = run_case(Case("cached", GROUP_NORMS, DDP, micro_batches=4))
    assert_equal_training(ours, one_process["group"], EXACT)


@pytest.mark.slow
def test_the_whole_matrix_on_four_ranks(tmp_path: Path, one_process: dict[str, Any]) -> None:
    exact = on_ranks([case for case in DDP_CASES if case.mutation is None], 4, tmp_path / "ddp")
    for name, ours in exact.items():
        expected = one_process["sync" if name == "sync norms" else "group"]
        assert_equal_training(ours, expected, EXACT)
    for ours in on_ranks(ZERO_CASES, 4, tmp_path / "zero").values():
        assert_equal_training(ours, one_process["group"], FLOAT32)

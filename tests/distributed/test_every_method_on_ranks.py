"""Every method on two gloo ranks against one process with the whole batch, in float64."""

from __future__ import annotations

import pytest
import torch

from tests.distributed.methods_on_ranks import (
    MethodCase,
    Result,
    run_method_case,
    run_method_cases,
)
from tests.distributed.ranks import start_ranks
from tests.tiny.methods import PROFILES

pytestmark = pytest.mark.xdist_group("methods_on_ranks")

NAMES = [name for name in PROFILES if name.startswith("phantom_") and name != "phantom_untrained"]
GROUP = {name: MethodCase(name, "group") for name in NAMES}
CACHED = {name: MethodCase(name, "group", micro_batches=3, packed=True) for name in NAMES}
# Another loss on the same modules says nothing new of their norms.
SYNC = {name: MethodCase(name, "sync") for name in NAMES if not name.endswith("_regions")}
# Groups are one room's, whatever the method: one whose samples differ in what they have will do.
GROUPS = MethodCase("phantom_limitr", "sync", plain_groups=True, groups_at_once=3, packed=True)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[MethodCase, Result]:
    folder = tmp_path_factory.mktemp("two")
    cases = [*GROUP.values(), *CACHED.values(), *SYNC.values(), GROUPS]
    start_ranks(run_method_cases, cases, folder, world_size=2, folder=folder).complete()
    results: dict[MethodCase, Result] = torch.load(folder / "results.pt", weights_only=False)
    return results


def assert_equal(ours: Result, expected: Result) -> None:
    assert ours.keys() == expected.keys()
    for part, wanted in expected.items():
        assert ours[part].keys() == wanted.keys()
        largest = max(float(value.abs().max()) for value in wanted.values())
        assert largest > 0, part
        for name, value in wanted.items():
            error = float((ours[part][name] - value).abs().max())
            assert error < 1e-10 * largest, f"{part}: {name}: {error:.1e} of {largest:.1e}"


@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_train_as_one_process(name: str, two_ranks: dict[MethodCase, Result]) -> None:
    """Without and with micro-batches of packed reports, against one process with the whole."""
    expected = run_method_case(GROUP[name])
    assert_equal(two_ranks[GROUP[name]], expected)
    assert_equal(two_ranks[CACHED[name]], expected)


@pytest.mark.parametrize("name", SYNC)
def test_two_ranks_share_their_norms_statistics(
    name: str, two_ranks: dict[MethodCase, Result]
) -> None:
    assert_equal(two_ranks[SYNC[name]], run_method_case(SYNC[name]))


def test_groups_on_two_ranks_are_as_micro_batches_of_one_process(
    two_ranks: dict[MethodCase, Result],
) -> None:
    plain = MethodCase("phantom_limitr", "sync", micro_batches=3, plain_groups=True)
    assert_equal(two_ranks[GROUPS], run_method_case(plain))

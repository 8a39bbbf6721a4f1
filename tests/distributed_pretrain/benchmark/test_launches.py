"""What the host launches and waits for in a step, held against what docs/measurements.md says."""

from __future__ import annotations

import re

import pytest

from data_shards.profiles import load_profile
from distributed_pretrain.benchmark.launches import LOVT_AT_FIRST, counts_of
from distributed_pretrain.pretrain.settings import PretrainConfig
from tests.paths import ROOT


def recorded(name: str) -> tuple[int, ...]:
    """(micro-batches, launches, copies, waits) of a row of the table."""
    page = (ROOT / "docs" / "measurements.md").read_text()
    (row,) = re.findall(rf"^\| {re.escape(name)} \|(.*)\|$", page, flags=re.MULTILINE)
    return tuple(int(cell.replace(",", "")) for cell in row.split("|"))


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("lovt_a100", ()),
        pytest.param("lovt_a100_80gb", (), marks=pytest.mark.slow),
        pytest.param("clip_a100", (), marks=pytest.mark.slow),
        pytest.param(
            "clip_a100, 2 micro-batches",
            ("training.accumulation_steps=2",),
            marks=pytest.mark.slow,
        ),
        *(
            pytest.param(f"{name}_a100", (), marks=pytest.mark.slow)
            for name in ("limitr", "gloria", "mgca", "byol")
        ),
    ],
)
def test_a_step_launches_and_waits_no_more_than_was_recorded(
    name: str, overrides: tuple[str, ...]
) -> None:
    profile = ROOT / "configs" / "pretrain" / f"{name.partition(',')[0]}.yaml"
    found = counts_of(load_profile(PretrainConfig, profile, overrides))
    parts, launches, copies, waits = recorded(name)
    assert found.micro_batches == parts
    assert 0.8 * launches < found.launches <= launches, "record it anew where it has become less"
    assert found.copies <= copies
    assert found.waits <= waits


def test_the_papers_recipe_launches_a_third_of_what_it_did_at_first() -> None:
    _, launches, _, waits = recorded("lovt_a100")
    assert launches <= LOVT_AT_FIRST / 3
    assert waits == 1

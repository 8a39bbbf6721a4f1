"""The pages of comparisons in docs/ are those of their profiles as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_shards.profiles import load_profile
from distributed_pretrain.experiments.settings import ComparisonConfig
from tests.paths import CONFIGS, DOCS, ROOT

PROFILES = sorted((CONFIGS / "compare").glob("*.yaml"))
DRAWN = {
    profile: config.page
    for profile in PROFILES
    if (config := load_profile(ComparisonConfig, profile)).page.parts[0] == DOCS.name
}


@pytest.mark.parametrize("profile", DRAWN, ids=lambda profile: profile.stem)
def test_a_page_has_the_rows_of_its_profile(profile: Path) -> None:
    page = (ROOT / DRAWN[profile]).read_text()
    assert f"compare {profile.relative_to(ROOT)}` from" in page
    lines = page[page.index("\n|  |") + 1 :].splitlines()[2:]
    rows = [line.split("|")[1].strip() for line in lines[: lines.index("")]]
    assert rows == [method.title for method in load_profile(ComparisonConfig, profile).methods]
    assert (ROOT / DRAWN[profile]).with_suffix(".png").exists()


def test_every_drawn_page_has_a_profile() -> None:
    made = "\n\nMade by `python -m distributed_pretrain compare "
    drawn = {page for page in DOCS.glob("*.md") if made in page.read_text()}
    assert drawn == {ROOT / page for page in DRAWN.values()}

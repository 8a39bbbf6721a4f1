"""What is told of many runs has one home each: tables, charts and heat on an X-ray."""

from __future__ import annotations

import re

import pytest

from tests.paths import ROOT

PACKAGES = ("data_shards", "distributed_pretrain", "launch")
EXPERIMENTS = "distributed_pretrain/experiments"


@pytest.mark.parametrize(
    ("sign", "home"),
    [
        (r"csv\.DictWriter|pyarrow\.parquet\.write", f"{EXPERIMENTS}/tables.py"),
        (r'format="svg"|<polyline|ElementTree\.(Sub)?Element', f"{EXPERIMENTS}/pages/charts.py"),
        (r"matplotlib\.colormaps|inferno", "distributed_pretrain/measures/pictures.py"),
    ],
    ids=["tables", "charts", "heat"],
)
def test_there_is_one(sign: str, home: str) -> None:
    found = [
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if re.search(sign, path.read_text())
    ]
    assert found == [home]

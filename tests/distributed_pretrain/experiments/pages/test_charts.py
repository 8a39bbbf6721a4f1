"""Charts of the quickstart's page."""

from __future__ import annotations

import re

import pytest

from distributed_pretrain.experiments.pages.charts import Chart, Curve
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.measures.retrieval import RECALL_AT_5

TERM = Metric("total", "total", unit="number", better="low")


@pytest.mark.parametrize(
    ("metric", "shown"), [(RECALL_AT_5, ["0%", "20%", "40%"]), (TERM, ["0.0", "0.2", "0.4"])]
)
def test_an_axis_of_fractions_is_in_per_cent(metric: Metric, shown: list[str]) -> None:
    svg = Chart("a", metric, (Curve("R@5", [0, 10, 20], [0.0, 0.1, 0.41]),)).svg()
    labels = re.findall(r">([^<>\s]+)</text>", svg)
    assert set(shown) <= set(labels)
    assert {"0", "20", "step"} <= set(labels)


def _points(svg: str) -> list[tuple[float, float]]:
    """Where the markers of the only curve lie."""
    uses = re.findall(r'<use href="#\w+" x="([\d.]+)" y="([\d.]+)"', svg)
    return [(float(x), float(y)) for x, y in uses]


def test_a_curve_that_rises_goes_up_and_to_the_right_inside_its_chart() -> None:
    svg = Chart("a", RECALL_AT_5, (Curve("R@5", [0, 10, 20], [0.0, 0.1, 0.4]),)).svg()
    points = _points(svg)
    assert len(points) == 3
    assert points == sorted(points)
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert found is not None
    assert all(0 < x < float(found[1]) and 0 < y < float(found[2]) for x, y in points)


def test_values_that_are_not_finite_are_left_out() -> None:
    chart = Chart("a", TERM, (Curve("train", [1, 2, 3], [2.0, 1.0, float("nan")]),))
    svg = chart.svg()
    assert len(_points(svg)) == 2
    assert "nan" not in svg
    assert chart.keys == [("train", "1.00")]


@pytest.mark.parametrize("values", [[], [3.0], [3.0, 3.0], [0.0, 0.0], [-2.0, -2.0], [1e-9, 1e9]])
def test_short_and_flat_curves_can_be_drawn(values: list[float]) -> None:
    svg = Chart("a", TERM, (Curve("total", range(len(values)), values),)).svg()
    assert len(_points(svg)) == len(values)
    assert "nan" not in svg


def test_a_chart_takes_the_colours_of_the_page() -> None:
    svg = Chart("a", TERM, tuple(Curve(each, [1], [1.0]) for each in "xyz")).svg()
    assert not re.search("#[0-9a-f]{6}", svg)
    for colour in ("before", "accent", "third", "muted", "rule"):
        assert f"var(--{colour})" in svg

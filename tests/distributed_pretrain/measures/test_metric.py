"""How a number is shown, and which of two is better."""

from __future__ import annotations

from distributed_pretrain.measures.metric import Metric

RECALL = Metric("recall_at_5", "R@5", headline=True)
LOSS = Metric("total", "total", unit="number", better="low")


def test_fractions_are_printed_in_per_cent_and_other_numbers_as_they_are() -> None:
    assert RECALL.show(0.5557) == "55.6 %"
    assert LOSS.show(0.5557) == "0.56"


def test_better_is_higher_or_lower_as_the_metric_says() -> None:
    assert RECALL.improves(0.3, 0.2)
    assert not RECALL.improves(0.2, 0.3)
    assert LOSS.improves(0.2, 0.3)
    assert not LOSS.improves(0.3, 0.2)


def test_equal_is_no_improvement_and_neither_is_too_little() -> None:
    for metric in (RECALL, LOSS):
        assert not metric.improves(0.3, 0.3)
    assert not RECALL.improves(0.35, 0.3, by=0.1)
    assert RECALL.improves(0.45, 0.3, by=0.1)


def test_a_metric_of_a_class_differs_in_name_and_title_alone() -> None:
    low = Metric("surface_distance", "distance", unit="number", better="low", headline=True)
    mean, opacity = low.of_each(("Lung Opacity",))
    assert mean is low
    assert (opacity.name, opacity.title) == ("surface_distance_lung_opacity", "Lung Opacity")
    assert (opacity.unit, opacity.better, opacity.headline) == ("number", "low", False)

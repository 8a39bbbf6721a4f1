"""Bars of a comparison: seed by seed, over test studies too, and about metrics that there are."""

from __future__ import annotations

import pytest

from data_shards.errors import InputError
from distributed_pretrain.experiments.expectations import check_bars, refuse_unknown_metrics
from distributed_pretrain.experiments.results import Results
from distributed_pretrain.experiments.settings import Bar
from distributed_pretrain.measures.by_phrase import ByPhrase
from tests.distributed_pretrain.experiments.pages.test_comparison import (
    FALLING,
    METHODS,
    _run,
    _runs,
)

BARS: dict[str, tuple[dict[str, object], str]] = {
    "above another figure of the run": (
        {"than_metric": "grounding_blind_category_pointing", "plus": 0.1},
        "holds",
    ),
    "not so far above it": (
        {"than_metric": "grounding_blind_category_pointing", "plus": 0.55},
        "does not hold",
    ),
    "a multiple of it": (
        {"than_metric": "grounding_blind_category_pointing", "times": 3},
        "within noise",
    ),
    "a number": ({"plus": 0.5}, "holds"),
    "another row": ({"than_method": "lovt_no_local"}, "holds"),
    "a row that has not been run": ({"than_method": "byol"}, "not yet run"),
}


@pytest.mark.parametrize("bar", BARS)
def test_a_bar_is_reached_seed_by_seed_or_not(bar: str) -> None:
    settings, verdict = BARS[bar]
    blind = "grounding_blind_category_pointing"
    results: Results = {
        "lovt": tuple(
            _run("lovt", seed, {"grounding_pointing": value, blind: 0.2})
            for seed, value in enumerate((0.58, 0.6, 0.63))
        ),
        "lovt_no_local": _runs("lovt_no_local", "grounding_pointing", 0.1, 0.15, 0.2),
    }
    asked = {"says": "Points", "method": "lovt", "metric": "grounding_pointing", **settings}
    check, figure_3 = check_bars([Bar.model_validate(asked)], METHODS, results)
    assert check.verdict == verdict
    assert check.expectation == "Points: pointing"
    assert figure_3.expectation.startswith("Figure 3: similarity of regions (LoVT) falls")
    assert figure_3.verdict == "holds"


def test_what_few_studies_say_is_no_verdict() -> None:
    """Every seed has the figure of the same few studies: that other seeds agree tells nothing."""
    verdicts = []
    for studies in (8, 800):
        hits = tuple(float(study % 5 < 3) for study in range(studies))
        phrases = ByPhrase(
            study=tuple(range(studies)),
            values={
                "grounding_pointing": hits,
                "grounding_blind_place_pointing": tuple(1 - hit for hit in hits),
                "grounding_pointing_focal": (None, *hits[1:]),
            },
        )
        figures = {"grounding_pointing": 0.6, "grounding_blind_place_pointing": 0.4}
        runs = tuple(
            _run(
                "lovt", seed, {**figures, "grounding_pointing": 0.6 + seed / 1e4}, FALLING, phrases
            )
            for seed in range(3)
        )
        bar = Bar(
            says="Points",
            method="lovt",
            metric="grounding_pointing",
            than_metric="grounding_blind_place_pointing",
        )
        check, _ = check_bars([bar], METHODS, {"lovt": runs})
        assert ", over studies ± " in check.figures
        verdicts.append(check.verdict)
    assert verdicts == ["within noise", "holds"]


def test_a_bar_about_no_metric_is_refused_before_anything_runs() -> None:
    bar = Bar(says="x", method="lovt", metric="grounding_pointng")
    with pytest.raises(InputError, match=r"'grounding_pointng' is no metric .* grounding_pointing"):
        refuse_unknown_metrics([bar])
    known = bar.model_copy(update={"metric": "linear_dice", "than_metric": "recall"})
    with pytest.raises(InputError, match="'recall' is no metric"):
        refuse_unknown_metrics([known])
    refuse_unknown_metrics([known.model_copy(update={"than_metric": None})])

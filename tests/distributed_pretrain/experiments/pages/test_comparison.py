"""Estimates, verdicts and the page of a comparison, from results made up for the test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_shards.errors import InputError
from data_shards.profiles import load_profile
from distributed_pretrain.experiments.expectations import (
    Check,
    check_expectations,
)
from distributed_pretrain.experiments.pages.comparison import write_page
from distributed_pretrain.experiments.results import Results, RunResult
from distributed_pretrain.experiments.settings import ComparedMethod, ComparisonConfig
from distributed_pretrain.measures.by_phrase import ByPhrase
from distributed_pretrain.measures.region_similarity import SimilarityAtDistance
from tests.paths import ROOT

PROFILE = Path("none.yaml")
METHODS = (
    ComparedMethod(name="lovt", title="LoVT", supervision="reports", profile=PROFILE),
    ComparedMethod(name="lovt_no_local", title="No local", supervision="reports", profile=PROFILE),
    ComparedMethod(name="simclr", title="SimCLR", supervision="images", profile=PROFILE),
    ComparedMethod(name="byol", title="BYOL", supervision="images", profile=PROFILE),
    ComparedMethod(name="untrained", title="Random", supervision="none", profile=PROFILE),
)


def _curve(*medians: float) -> tuple[SimilarityAtDistance, ...]:
    return tuple(
        SimilarityAtDistance(
            distance=(position + 1) / 10,
            pairs=100 - position,
            mean=median,
            percentiles=tuple(np.linspace(median - 0.2, median + 0.2, 101).tolist()),
        )
        for position, median in enumerate(medians)
    )


FALLING = _curve(0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)


def _run(
    method: str,
    seed: int,
    metrics: dict[str, float] | None = None,
    region_similarity: tuple[SimilarityAtDistance, ...] = FALLING,
    by_phrase: ByPhrase | None = None,
) -> RunResult:
    return RunResult(
        by_phrase=by_phrase,
        job="x",
        method=method,
        seed=seed,
        metrics={"samples": 400.0, **(metrics or {})},
        region_similarity=region_similarity,
        steps=250,
        global_batch=32,
        image_size_px=96,
        pretrain_cpu_seconds=60.0,
        evaluate_cpu_seconds=12.0,
        machine="CPU (x86_64)",
        judged_on="2026-11-29",
    )


def _runs(method: str, metric: str, *values: float) -> tuple[RunResult, ...]:
    return tuple(_run(method, seed, {metric: value}) for seed, value in enumerate(values))


def _check(results: Results, start: str, metric: str = "") -> Check:
    found = [
        check
        for check in check_expectations(METHODS, results)
        if check.expectation.startswith(start) and check.expectation.endswith(metric)
    ]
    assert len(found) == 1, [check.expectation for check in found]
    return found[0]


@pytest.mark.parametrize(
    ("better", "verdict"),
    [
        ((0.30, 0.31, 0.32), "holds"),
        ((0.18, 0.20, 0.23), "within noise"),
        ((0.10, 0.11, 0.12), "does not hold"),
        ((0.90,), "within noise"),
        ((), "not yet run"),
    ],
)
def test_a_verdict_needs_more_than_the_noise_of_seeds(
    better: tuple[float, ...], verdict: str
) -> None:
    results = {
        "lovt": _runs("lovt", "linear_dice", *better),
        "lovt_no_local": _runs("lovt_no_local", "linear_dice", 0.2, 0.2, 0.2),
    }
    assert _check(results, "LoVT beats its ablation", "Dice").verdict == verdict


def test_each_method_of_reports_meets_the_best_of_images_alone() -> None:
    results = {
        "lovt": _runs("lovt", "linear_auroc", 0.80, 0.81),
        "lovt_no_local": _runs("lovt_no_local", "linear_auroc", 0.95, 0.95),
        "simclr": _runs("simclr", "linear_auroc", 0.60, 0.61),
        "byol": _runs("byol", "linear_auroc", 0.70, 0.71),
    }
    check = _check(results, "LoVT beats the best of images alone, BYOL")
    assert (check.verdict, check.figures) == ("holds", "80.5 % against 70.5 %: +10.0 ± 0.0 points")
    # The ablation is no method of its own: the mean over report methods is LoVT's alone.
    assert _check(results, "Methods that learn", "AUROC").figures.startswith(
        "80.5 % against 65.5 %"
    )


@pytest.mark.parametrize(
    ("curves", "near", "whole"),
    [
        ((FALLING, FALLING), "holds", "holds"),
        ((FALLING, _curve(0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.41)), "holds", "within noise"),
        ((_curve(0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.6),), "holds", "does not hold"),
        ((_curve(0.9, 0.8, 0.85, 0.6, 0.5, 0.4, 0.3),), "does not hold", "does not hold"),
        ((), "not yet run", "not yet run"),
    ],
)
def test_figure_3_falls_at_every_step_or_not(
    curves: tuple[tuple[SimilarityAtDistance, ...], ...], near: str, whole: str
) -> None:
    runs = tuple(_run("lovt", seed, region_similarity=curve) for seed, curve in enumerate(curves))
    assert _check({"lovt": runs}, "Figure 3", "up to 0.6").verdict == near
    assert _check({"lovt": runs}, "Figure 3", "at every step").verdict == whole


def _config(tmp_path: Path, **settings: object) -> ComparisonConfig:
    values = {
        "title": "A comparison",
        "output": tmp_path / "out",
        "page": tmp_path / "page.md",
        "shards_profile": "shards.yaml",
        "shards": "shards",
        "methods": METHODS,
        **settings,
    }
    return ComparisonConfig.model_validate(values)


def test_the_page_has_every_figure_and_names_what_is_missing(tmp_path: Path) -> None:
    results: Results = {method.name: () for method in METHODS}
    results["lovt"] = tuple(
        _run(
            "lovt",
            seed,
            {
                "recall_at_1": 0.2,
                "recall_at_5": 0.5 + seed / 100,
                "grounding_pointing_focal": 0.4,
                "grounding_cnr_gain": 0.31,
                "local_report_other_image": 0.7,
                "local_report_from_image": 0.01 * seed,
                "linear_dice": 0.25,
                "linear_auroc": 0.8,
            },
        )
        for seed in range(3)
    )
    results["byol"] = (_run("byol", 0, {"linear_dice": 0.2, "linear_auroc": 0.7}),)
    text = write_page(_config(tmp_path, notes=["A note."]), results, command="the command")
    page = (tmp_path / "page.md").read_text()
    row = (
        "| LoVT | reports | 20.0 ± 0.0 | 51.0 ± 2.5 | 40.0 ± 0.0 | 0.31 ± 0.00 | 25.0 ± 0.0 "
        "| 80.0 ± 0.0 | 3 |"
    )
    assert row in page
    assert "| LoVT | `local_report` | 0.70 ± 0.00 | 0.01 ± 0.02 |" in page
    assert row in text
    assert "| BYOL | images | - | - | - | - | 20.0 | 70.0 | 1 | 72 |" in page
    assert "| SimCLR | images | not yet run |" in page
    assert "from 4 of 15 runs" in page
    assert "A note." in page
    assert "`the command`" in page
    picture = np.asarray(Image.open(tmp_path / "page.png").convert("L"))
    assert picture.std() > 5


def test_a_comparison_without_any_run_still_has_a_page(tmp_path: Path) -> None:
    write_page(_config(tmp_path), {}, command="c")
    page = (tmp_path / "page.md").read_text()
    assert "from 0 of 15 runs" in page
    assert "**holds**" not in page


def test_the_page_holds_grounding_beside_maps_that_see_no_image(tmp_path: Path) -> None:
    figures = {
        "grounding_pointing": 0.6,
        "grounding_pointing_focal": 0.5,
        "grounding_pointing_fixed": 0.9,
        "grounding_cnr": 1.1,
        "grounding_box_area": 0.045,
        "grounding_cropped_pointing": 0.51,
        "grounding_cropped_pointing_focal": 0.4,
        "grounding_cropped_cnr_gain": 0.7,
        "grounding_blind_category_pointing_fixed": 0.35,
        "grounding_blind_category_pointing": 0.217,
        "grounding_blind_category_pointing_focal": 0.08,
        "grounding_blind_category_cnr": 0.99,
        "grounding_blind_category_pointing_low": 0.19,
        "grounding_blind_category_pointing_high": 0.24,
        "grounding_blind_phrases": 1234,
    }
    results: Results = {"lovt": (_run("lovt", 0, figures),)}
    bar = {"says": "Points", "method": "lovt", "metric": "grounding_pointing", "plus": 0.5}
    write_page(_config(tmp_path, bars=[bar]), results, command="c")
    page = (tmp_path / "page.md").read_text()
    assert "| LoVT | 60.0 | 50.0 | 90.0 | 1.10 | - |" in page
    assert "| blind: boxes of the category | 21.7 (19.0 to 24.0) | 8.0 | 35.0 | 0.99 |" in page
    assert "Boxes fill 4.5 % of what is seen" in page
    assert "| LoVT | 51.0 | 40.0 | - | - | 0.70 | - | - |" in page.split("### On crops")[1]
    assert ", 2026-11-29; 0.0 core-hours" in page
    assert "means of the boxes of 1,234 training phrases" in page
    assert "| Points: pointing | **within noise** | 60.0 % against 50.0 %: +10.0 points |" in page
    assert "SimCLR beats" not in page


def test_maps_that_see_no_image_stand_beside_the_rows_of_their_own_image_size(
    tmp_path: Path,
) -> None:
    def run(method: str, size_px: int, blind: float) -> RunResult:
        figures = {
            "grounding_pointing_focal": 0.5,
            "grounding_blind_category_pointing": blind,
            "grounding_blind_phrases": 9,
        }
        return _run(method, 0, figures).model_copy(update={"image_size_px": size_px})

    results: Results = {
        "lovt": (run("lovt", 64, 0.239),),
        "lovt_no_local": (run("lovt_no_local", 96, 0.242),),
    }
    write_page(_config(tmp_path), results, command="c")
    page = (tmp_path / "page.md").read_text()
    assert "| blind: boxes of the category (64 px) | 23.9 |" in page
    assert "| blind: boxes of the category (96 px) | 24.2 |" in page


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"bars": [{"says": "x", "method": "lovtt", "metric": "linear_dice"}]},
            "bars: 'lovtt' is none of lovt, lovt_no_local",
        ),
        (
            {"bars": [{"says": "x", "method": "lovt", "metric": "linear_dice", "times": 3}]},
            "times: of which figure",
        ),
        ({"only": ["lovtt"]}, "only: 'lovtt' is none of lovt, lovt_no_local"),
        ({"methods": [METHODS[0], METHODS[0]]}, "'lovt' is the name of two methods"),
        ({"seeds": []}, "seeds"),
    ],
)
def test_a_comparison_that_makes_no_sense_is_refused(
    tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _config(tmp_path, **settings)


def test_the_profile_names_profiles_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = load_profile(ComparisonConfig, Path("configs/compare/phantom.yaml"))
    missing = [method.profile for method in config.methods if not method.profile.exists()]
    assert missing == []
    assert config.shards_profile.exists()
    with pytest.raises(InputError, match="did you mean 'seeds'"):
        load_profile(ComparisonConfig, Path("configs/compare/phantom.yaml"), ["seds=[0]"])

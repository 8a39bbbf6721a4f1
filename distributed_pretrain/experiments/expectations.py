"""What the papers lead one to expect, held against the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from distributed_pretrain.experiments.measures import (
    LINEAR_AUROC,
    LINEAR_DICE,
    LOCALIZED,
    Measure,
)
from distributed_pretrain.experiments.results import Results, RunResult, values_of
from distributed_pretrain.experiments.settings import ComparedMethod, Supervision
from distributed_pretrain.experiments.statistics import (
    Verdict,
    paired_difference,
    verdict_of,
)

LOVT, WITHOUT_LOCAL_LOSSES, RANDOM_START = "lovt", "lovt_no_local", "untrained"
# Beyond it the paper's own curves may rise: both regions are then background at opposite borders.
SMOOTH_UP_TO = 0.6


@dataclass(frozen=True)
class Check:
    """One expectation, whether the figures bear it out, and these figures."""

    expectation: str
    verdict: Verdict
    figures: str


def check_expectations(methods: Sequence[ComparedMethod], results: Results) -> tuple[Check, ...]:
    """Every expectation, also those that nothing has been run for yet.

    Differences are taken within seeds. A method named by an expectation that the comparison lacks
    counts as not run.
    """
    titles = {method.name: method.title for method in methods}
    checks: list[Check] = []
    for measure in (LINEAR_DICE, LINEAR_AUROC):
        checks += _reports_against_images(methods, results, measure)
    checks += [
        _comparison(
            f"{titles.get(LOVT, LOVT)} beats its ablation without local losses: {measure.title}",
            values_of(results.get(LOVT, ()), measure.key),
            values_of(results.get(WITHOUT_LOCAL_LOSSES, ()), measure.key),
            measure,
        )
        for measure in LOCALIZED
    ]
    checks += [
        _comparison(
            f"{titles.get(LOVT, LOVT)} beats its random start: {measure.title}",
            values_of(results.get(LOVT, ()), measure.key),
            values_of(results.get(RANDOM_START, ()), measure.key),
            measure,
        )
        for measure in (LINEAR_DICE, LINEAR_AUROC)
    ]
    lovt = results.get(LOVT, ())
    return (*checks, _falls_with_distance(lovt, SMOOTH_UP_TO), _falls_with_distance(lovt, 1.0))


def _reports_against_images(
    methods: Sequence[ComparedMethod], results: Results, measure: Measure
) -> list[Check]:
    """The groups' means, then every text-supervised method against the best image-only one."""
    by_reports = _of_supervision(methods, results, "reports", measure)
    by_images = _of_supervision(methods, results, "images", measure)
    checks = [
        _comparison(
            f"Methods that learn from reports beat those from images alone, on average: "
            f"{measure.title}",
            _mean_by_seed(by_reports),
            _mean_by_seed(by_images),
            measure,
        )
    ]
    titles = {method.name: method.title for method in methods}
    best = max(by_images, key=lambda name: fmean(by_images[name].values()), default=None)
    if best is not None:
        checks += [
            _comparison(
                f"{titles[name]} beats the best of images alone, {titles[best]}: {measure.title}",
                values,
                by_images[best],
                measure,
            )
            for name, values in by_reports.items()
        ]
    return checks


def _of_supervision(
    methods: Sequence[ComparedMethod],
    results: Results,
    supervision: Supervision,
    measure: Measure,
) -> dict[str, dict[int, float]]:
    """Values by seed of the paper's methods that have any; ablations are none of them."""
    found = {
        method.name: values_of(results.get(method.name, ()), measure.key)
        for method in methods
        if method.supervision == supervision and method.name != WITHOUT_LOCAL_LOSSES
    }
    return {name: values for name, values in found.items() if values}


def _mean_by_seed(by_method: Mapping[str, Mapping[int, float]]) -> dict[int, float]:
    """The mean over methods, of the seeds that all of them have."""
    if not by_method:
        return {}
    common = set.intersection(*(set(values) for values in by_method.values()))
    return {seed: fmean(values[seed] for values in by_method.values()) for seed in sorted(common)}


def _comparison(
    expectation: str, better: Mapping[int, float], worse: Mapping[int, float], measure: Measure
) -> Check:
    difference = paired_difference(better, worse)
    verdict = verdict_of(difference)
    if difference is None:
        return Check(expectation, verdict, "")
    common = sorted(better.keys() & worse.keys())
    means = [measure.show(fmean(values[seed] for seed in common)) for values in (better, worse)]
    return Check(
        expectation,
        verdict,
        f"{means[0]} against {means[1]}: {measure.show_difference(difference)}",
    )


def _falls_with_distance(runs: Sequence[RunResult], up_to: float) -> Check:
    """Whether the median cosine falls from each distance to the next (LoVT's Figure 3)."""
    where = "at every step" if up_to >= 1 else f"at every step up to {up_to}"
    expectation = f"Figure 3: similarity of LoVT's regions falls with their distance {where}"
    if not runs:
        return Check(expectation, "not yet run", "")
    curves = [{each.distance: each.quartiles[1] for each in run.region_similarity} for run in runs]
    distances = [distance for distance in curves[0] if distance <= up_to]
    means = {each: fmean(curve[each] for curve in curves) for each in distances}
    falling_runs = sum(all(curve[a] > curve[b] for a, b in pairwise(distances)) for curve in curves)
    if falling_runs == len(runs):
        verdict: Verdict = "holds"
    elif all(means[a] > means[b] for a, b in pairwise(distances)):
        verdict = "within noise"
    else:
        verdict = "does not hold"
    medians = ", ".join(f"{mean:.3f} at {distance}" for distance, mean in means.items())
    return Check(expectation, verdict, f"in {falling_runs} of {len(runs)} runs; medians {medians}")

"""What the papers lead one to expect, held against the figures."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean

import numpy as np

from data_shards.errors import InputError
from distributed_pretrain.experiments.estimates import Verdict, paired_difference, verdict_of
from distributed_pretrain.experiments.results import Results, RunResult, values_of
from distributed_pretrain.experiments.settings import Bar, ComparedMethod
from distributed_pretrain.measures.by_phrase import interval_over_studies
from distributed_pretrain.measures.catalog import JUDGED_BY
from distributed_pretrain.measures.grounding_metrics import CNR_GAIN
from distributed_pretrain.measures.linear_auroc import LINEAR_AUROC
from distributed_pretrain.measures.linear_dice import LINEAR_DICE
from distributed_pretrain.measures.metric import Metric

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
    lovt = results.get(LOVT, ())
    title = next((method.title for method in methods if method.name == LOVT), LOVT)
    beaten = (
        (WITHOUT_LOCAL_LOSSES, "its ablation without local losses", (LINEAR_DICE, CNR_GAIN)),
        (RANDOM_START, "its random start", (LINEAR_DICE, LINEAR_AUROC)),
    )
    checks: list[Check] = []
    for metric in (LINEAR_DICE, LINEAR_AUROC):
        checks += _reports_against_images(methods, results, metric)
    for other, called, metrics in beaten:
        for metric in metrics:
            better, worse = (values_of(runs, metric) for runs in (lovt, results.get(other, ())))
            checks.append(_comparison(f"{title} beats {called}", better, worse, metric))
    return (*checks, *(_falls_with_distance(lovt, up_to) for up_to in (SMOOTH_UP_TO, 1.0)))


def refuse_unknown_metrics(bars: Sequence[Bar]) -> None:
    """Raise InputError for a bar about what is none of `JUDGED_BY`."""
    for bar in bars:
        for name in filter(None, (bar.metric, bar.than_metric)):
            if name not in JUDGED_BY:
                near = ", ".join(
                    difflib.get_close_matches(name, JUDGED_BY, n=3) or sorted(JUDGED_BY)
                )
                raise InputError(f"bars: {name!r} is no metric of a comparison (near: {near})")


def check_bars(
    bars: Sequence[Bar], methods: Sequence[ComparedMethod], results: Results
) -> tuple[Check, ...]:
    """Whether each bar is reached, by the seeds that both have; and Figure 3 of their rows."""
    titles = {method.name: method.title for method in methods}
    figures = (
        _falls_with_distance(results.get(name, ()), SMOOTH_UP_TO, f"regions ({titles[name]})")
        for name in dict.fromkeys(bar.method for bar in bars)
    )
    return (*(_check_bar(bar, results) for bar in bars), *figures)


def _check_bar(bar: Bar, results: Results) -> Check:
    metric = JUDGED_BY[bar.metric]
    runs = results.get(bar.method, ())
    found = values_of(runs, metric)
    wanted, others, of_others = dict.fromkeys(found, bar.plus), runs, None
    if bar.than_method or bar.than_metric:
        others = results.get(bar.than_method or bar.method, ())
        of_others = JUDGED_BY[bar.than_metric or bar.metric]
        other = values_of(others, of_others)
        wanted = {seed: bar.times * value + bar.plus for seed, value in other.items()}
    by_studies = _half_width_over_studies(runs, metric, others, of_others, bar.times)
    return _comparison(bar.says, found, wanted, metric, by_studies)


def _half_width_over_studies(
    runs: Sequence[RunResult],
    metric: Metric,
    others: Sequence[RunResult],
    of_others: Metric | None,
    times: float,
) -> float | None:
    """Half of the 95 % interval that other test studies would give, for the mean over seeds.

    Of `metric` less `times` that of the others, phrase by phrase; None for figures that are no
    means of phrases, or of other phrases.
    """
    by_seed = {run.seed: run.by_phrase for run in others if run.by_phrase}
    differences, studies = [], set()
    for run in runs:
        other = by_seed.get(run.seed)
        if run.by_phrase is None or other is None or run.by_phrase.study != other.study:
            continue
        values = run.by_phrase.of(metric.name)
        less = other.of(of_others.name) if of_others is not None else 0.0
        if values is not None and less is not None:
            differences.append(values - times * less)
            studies.add(other.study)
    if len(studies) != 1:
        return None
    low, high = interval_over_studies(np.mean(differences, axis=0), *studies)
    return (high - low) / 2


def _reports_against_images(
    methods: Sequence[ComparedMethod], results: Results, metric: Metric
) -> list[Check]:
    """The groups' means, then every text-supervised method against the best image-only one."""
    titles = {method.name: method.title for method in methods}
    # Of the paper's methods that have any value by seed; ablations are none of them.
    by_reports, by_images = (
        {
            each.name: values
            for each in methods
            if each.supervision == supervision and each.name != WITHOUT_LOCAL_LOSSES
            if (values := values_of(results.get(each.name, ()), metric))
        }
        for supervision in ("reports", "images")
    )
    checks = [
        _comparison(
            "Methods that learn from reports beat those from images alone, on average",
            _mean_by_seed(by_reports),
            _mean_by_seed(by_images),
            metric,
        )
    ]
    best = max(
        by_images, key=lambda name: metric.gain(fmean(by_images[name].values())), default=None
    )
    if best is not None:
        checks += [
            _comparison(
                f"{titles[name]} beats the best of images alone, {titles[best]}",
                values,
                by_images[best],
                metric,
            )
            for name, values in by_reports.items()
        ]
    return checks


def _mean_by_seed(by_method: Mapping[str, Mapping[int, float]]) -> dict[int, float]:
    """The mean over methods, of the seeds that all of them have."""
    if not by_method:
        return {}
    common = set.intersection(*(set(values) for values in by_method.values()))
    return {seed: fmean(values[seed] for values in by_method.values()) for seed in sorted(common)}


def _comparison(
    expectation: str,
    better: Mapping[int, float],
    worse: Mapping[int, float],
    metric: Metric,
    by_studies: float | None = None,
) -> Check:
    """By the seeds that both have; `by_studies` widens the interval of the seeds."""
    expectation = f"{expectation}: {metric.title}"
    difference = paired_difference(better, worse)
    if difference is None:
        return Check(expectation, "not yet run", "")
    common = better.keys() & worse.keys()
    means = [metric.show(fmean(values[seed] for seed in common)) for values in (better, worse)]
    figures = f"{means[0]} against {means[1]}: {difference.show_difference(metric)}"
    if by_studies is not None:
        figures += f", over studies ± {metric.scale * by_studies:.{metric.digits}f}"
        if difference.half_width is not None:
            both = math.hypot(difference.half_width, by_studies)
            difference = replace(difference, half_width=both)
    return Check(expectation, verdict_of(difference, metric), figures)


def _falls_with_distance(
    runs: Sequence[RunResult], up_to: float, whose: str = "LoVT's regions"
) -> Check:
    """Whether the median cosine falls from each distance to the next (LoVT's Figure 3)."""
    where = "at every step" if up_to >= 1 else f"at every step up to {up_to}"
    expectation = f"Figure 3: similarity of {whose} falls with their distance {where}"
    if not runs:
        return Check(expectation, "not yet run", "")
    curves = [{each.distance: each.quartiles[1] for each in run.region_similarity} for run in runs]
    common = set.intersection(*(set(curve) for curve in curves))
    distances = sorted(distance for distance in common if distance <= up_to)
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

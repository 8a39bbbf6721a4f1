"""The picture of a comparison: every run by metric, and LoVT's Figure 3."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distributed_pretrain.experiments import expectations
from distributed_pretrain.experiments.pages.charts import plain_axes
from distributed_pretrain.experiments.results import Results, RunResult, values_of
from distributed_pretrain.experiments.settings import ComparedMethod, ComparisonConfig
from distributed_pretrain.experiments.tables import estimate
from distributed_pretrain.measures.metric import Metric

# Colour and legend.
KINDS = {
    "reports": ("#1f6fb4", "learns from reports"),
    "images": ("#d9822b", "from images"),
    "labels": ("#4c9a5b", "from labels"),
    "none": ("#777777", "from nothing"),
}
# Of the distance between two violins; the one with the most pairs is that wide.
WIDEST_VIOLIN = 0.09
MOST_VIOLINS = 3
# In characters, lest it meets its neighbour's.
WIDEST_TITLE = 20


def draw_comparison(
    path: Path, config: ComparisonConfig, results: Results, metrics: Sequence[Metric]
) -> None:
    """Write the picture: a column of dots for each of `metrics`, and LoVT's Figure 3 beneath.

    A dot is a run, a bar the 95% confidence interval of the mean. Methods without runs keep an
    empty line. Figure 3 is of the rows that the bars are about.
    """
    methods = config.methods
    figure = Figure(figsize=(11, 4.2 + 0.28 * len(methods)), dpi=110, layout="constrained")
    parts = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.2 + 0.28 * len(methods), 3.0))
    above, below = parts[:, 0]
    panels = above.subplots(1, len(metrics), sharey=True)
    for axes, metric in zip(panels, metrics, strict=True):
        _draw_runs(axes, metric, methods, results)
    panels[0].set_yticks(range(len(methods)), [method.title for method in methods])
    panels[0].invert_yaxis()
    shown_kinds = [KINDS[kind] for kind in dict.fromkeys(each.supervision for each in methods)]
    handles = [panels[0].plot([], [], "o", color=colour)[0] for colour, _ in shown_kinds]
    legends = [legend for _, legend in shown_kinds]
    place = "outside upper center"
    above.legend(handles, legends, loc=place, ncols=len(legends), frameon=False)
    titles = {method.name: method.title for method in methods}
    asked = [bar.method for bar in config.bars] or [
        expectations.LOVT,
        expectations.WITHOUT_LOCAL_LOSSES,
    ]
    shown = [name for name in dict.fromkeys(asked) if results.get(name)][:MOST_VIOLINS]
    if shown:
        violins = below.subplots(1, len(shown), sharey=True, squeeze=False)[0]
        for axes, name in zip(violins, shown, strict=True):
            _draw_violins(axes, results[name][0])
            axes.set_title(f"{titles[name]}, seed {results[name][0].seed}", fontsize=9)
        violins[0].set_ylabel("cosine of two regions")
    figure.savefig(path)


def _draw_runs(
    axes: Axes, metric: Metric, methods: Sequence[ComparedMethod], results: Results
) -> None:
    for row, method in enumerate(methods):
        found = values_of(results.get(method.name, ()), metric).values()
        values = [metric.scale * value for value in found]
        if not values:
            continue
        colour, _ = KINDS[method.supervision]
        mean = estimate(values)
        axes.errorbar(mean.mean, row, xerr=mean.half_width, color=colour, capsize=3, marker="|")
        axes.plot(values, [row] * len(values), "o", color=colour, markersize=3.5, alpha=0.6)
    title = f"{metric.title}{', %' if metric.unit == 'fraction' else ''}"
    axes.set_title(textwrap.fill(title, WIDEST_TITLE), fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    plain_axes(axes)


def _draw_violins(axes: Axes, run: RunResult) -> None:
    """Violins as wide as there are pairs, with dashed quartiles, of the stored percentiles."""
    # A density needs values that differ.
    by_distance = [
        each for each in run.region_similarity if each.percentiles[-1] > each.percentiles[0]
    ]
    if by_distance:
        most = max(each.pairs for each in by_distance)
        parts = axes.violinplot(
            [each.percentiles for each in by_distance],
            [each.distance for each in by_distance],
            widths=[WIDEST_VIOLIN * each.pairs / most for each in by_distance],
            quantiles=[[0.25, 0.5, 0.75]] * len(by_distance),
        )
        parts["cquantiles"].set_linestyle("--")
    medians = [(each.distance, each.quartiles[1]) for each in run.region_similarity]
    axes.plot(*zip(*medians, strict=True), color="black", linewidth=0.8, alpha=0.6)
    axes.set_xlabel("distance / diagonal of the grid")
    axes.grid(axis="y", alpha=0.3)
    plain_axes(axes)

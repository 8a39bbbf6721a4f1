"""The picture of a comparison: every run by metric, and LoVT's Figure 3."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distributed_pretrain.experiments import expectations
from distributed_pretrain.experiments.estimates import estimate
from distributed_pretrain.experiments.results import Results, values_of
from distributed_pretrain.experiments.settings import ComparedMethod, ComparisonConfig
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.measures.pictures import plain_axes
from distributed_pretrain.measures.region_similarity import draw_violins

# Colour and legend.
KINDS = {
    "reports": ("#1f6fb4", "learns from reports"),
    "images": ("#d9822b", "from images"),
    "labels": ("#4c9a5b", "from labels"),
    "none": ("#777777", "from nothing"),
}
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
            draw_violins(axes, results[name][0].region_similarity)
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

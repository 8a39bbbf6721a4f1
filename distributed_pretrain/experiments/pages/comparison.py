"""The page of a comparison with its picture, made from its results and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data_shards.files.atomic import write_text_atomically
from distributed_pretrain.experiments import expectations
from distributed_pretrain.experiments.pages.charts import plain_axes
from distributed_pretrain.experiments.results import Results, RunResult, values_of
from distributed_pretrain.experiments.settings import ComparedMethod, ComparisonConfig
from distributed_pretrain.experiments.tables import estimate, markdown_table, show_values
from distributed_pretrain.measures.grounding_metrics import (
    BORDER,
    CNR_GAIN,
    FOCAL_POINTING,
    GROUNDING_CNR,
    MAPS,
    POINTING,
    SAME_CELL_OTHER_IMAGE,
    SAME_CELL_OTHER_PHRASE,
    of_map,
)
from distributed_pretrain.measures.linear_auroc import LINEAR_AUROC
from distributed_pretrain.measures.linear_dice import LINEAR_DICE
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.measures.other_images import TOLD, of_term
from distributed_pretrain.measures.region_similarity import STUDIES
from distributed_pretrain.measures.retrieval import RECALL_AT_1, RECALL_AT_5

NOT_YET_RUN = "not yet run"
TABLE = (RECALL_AT_1, RECALL_AT_5, FOCAL_POINTING, CNR_GAIN, LINEAR_DICE, LINEAR_AUROC)
PICTURED = TABLE[1:]
GROUNDED = (
    POINTING,
    FOCAL_POINTING,
    GROUNDING_CNR,
    CNR_GAIN,
    BORDER,
    SAME_CELL_OTHER_PHRASE,
    SAME_CELL_OTHER_IMAGE,
)
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


def write_page(config: ComparisonConfig, results: Results, *, command: str) -> str:
    """Write the page and the picture beside it; return the table and the checks as text."""
    picture = config.page.with_suffix(".png")
    config.page.parent.mkdir(parents=True, exist_ok=True)
    _draw_comparison(picture, config, results)
    checks = expectations.check_bars(config.bars, config.methods, results)
    if not checks:
        checks = expectations.check_expectations(config.methods, results)
    text = "\n\n".join(
        [
            f"# {config.title}",
            _introduction(config, results, command),
            _table(config, results),
            f"![Every run, and the similarity of regions by distance]({picture.name})",
            *_grounding(config, results),
            *_told_by_images(config, results),
            "## What is asked" if config.bars else "## Expected from the papers",
            _checks(checks),
            *config.notes,
            "## How to read it",
            _definitions(config, results),
        ]
    )
    write_text_atomically(config.page, text + "\n")
    return f"{_table(config, results)}\n\n{_checks(checks)}\n\nwritten to {config.page}"


def _introduction(config: ComparisonConfig, results: Results, command: str) -> str:
    runs = [run for each in results.values() for run in each]
    wanted = len(config.methods) * len(config.seeds)
    lines = [
        f"Made by `{command}` from {len(runs)} of {wanted} runs "
        f"({len(config.methods)} rows, seeds {', '.join(map(str, config.seeds))})."
    ]
    if runs:
        seconds = sum(run.pretrain_cpu_seconds + run.evaluate_cpu_seconds for run in runs)
        machines = ", ".join(sorted({run.machine for run in runs}))
        lines.append(
            f"{machines}; {seconds / 3600:.1f} core-hours in all. Small encoders from "
            f"scratch, {_range([run.image_size_px for run in runs])} px, "
            f"{_range([run.steps for run in runs if run.steps])} steps of "
            f"{_range([run.global_batch for run in runs])} studies, on the synthetic chests of "
            f"`{config.shards_profile}`: orders within this table can be compared with the "
            "papers', figures cannot."
        )
    return " ".join(lines)


def _range(values: Sequence[int]) -> str:
    if not values:
        return NOT_YET_RUN
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _table(config: ComparisonConfig, results: Results) -> str:
    rows = [["", "learns from", *(metric.title for metric in TABLE), "runs", "CPU s a run"]]
    for method in config.methods:
        runs, figures, seconds = results.get(method.name, ()), [NOT_YET_RUN] * len(TABLE), ""
        if runs:
            figures = [show_values(list(values_of(runs, each).values()), each) for each in TABLE]
            spent = fmean(run.pretrain_cpu_seconds + run.evaluate_cpu_seconds for run in runs)
            seconds = f"{spent:.0f}"
        learns_from = "nothing" if method.supervision == "none" else method.supervision
        rows.append([method.title, learns_from, *figures, str(len(runs)), seconds])
    return markdown_table(rows)


def _grounding(config: ComparisonConfig, results: Results) -> list[str]:
    """How phrases are grounded, beside what a map does that is blind to the image."""
    rows, seen = [], []
    for method in config.methods:
        runs = results.get(method.name, ())
        if values_of(runs, FOCAL_POINTING):
            shown = [show_values(list(values_of(runs, each).values()), each) for each in GROUNDED]
            rows.append([method.title, *shown])
            seen = list(runs)
    for name, title in MAPS.items():
        values = {each: list(values_of(seen, each).values())[:1] for each in of_map(name)}
        if all(values.values()):
            shown = [show_values(value, each) for each, value in values.items()]
            rows.append([title, *shown, *[""] * (len(GROUNDED) - len(shown))])
    if not rows:
        return []
    return [
        "## Phrases in their boxes",
        markdown_table([["", *(m.title for m in GROUNDED)], *rows]),
    ]


def _told_by_images(config: ComparisonConfig, results: Results) -> list[str]:
    """The terms that compare regions with reports, with the images of other studies."""
    rows = []
    for method in config.methods:
        runs = results.get(method.name, ())
        names = dict.fromkeys(name for run in runs for name in run.metrics if name.endswith(TOLD))
        for term in (name.removesuffix(TOLD) for name in names):
            values = (list(values_of(runs, each).values()) for each in of_term(term))
            shown = map(show_values, values, of_term(term))
            rows.append([method.title, f"`{term}`", *shown])
    if not rows:
        return []
    heads = ["", "term", "with another study's image", "less with the own: what the image tells"]
    return ["## What regions learn from the image", markdown_table([heads, *rows])]


def _checks(checks: Sequence[expectations.Check]) -> str:
    rows = [[check.expectation, f"**{check.verdict}**", check.figures] for check in checks]
    return markdown_table([["expected", "", "figures"], *rows])


def _definitions(config: ComparisonConfig, results: Results) -> str:
    samples = {int(run.metrics["samples"]) for each in results.values() for run in each}
    studies = _range(sorted(samples)) if samples else "all"
    subsets = (
        f"the mean over {config.labelled_subsets} disjoint sets of {config.labelled_studies}"
        if config.labelled_subsets > 1
        else f"{config.labelled_studies}"
    )
    labels = ", ".join(config.labels) or "all labels"
    return f"""\
- Mean over seeds ± half of the 95% confidence interval, 1.96 std(ddof=1) / sqrt(n), in per cent
  except for the CNR. It tells how far other seeds may lie, and with three of them roughly; not how
  far other test studies would.
- Checks take differences seed by seed. *Holds*: the interval of the difference lies above 0;
  *within noise*: it holds 0; *does not hold*: it lies below.
- All metrics are of {studies} held-out studies, for the weights after the last step.
- R@k: mean of both directions; identical reports count as one. Guessing finds about
  k / studies.
- Phrases in their boxes: pointing is right where a phrase's hottest pixel lies in its box; focal
  findings may lie anywhere in a lung. CNR: contrast of the heat inside its box to outside, signed;
  above that of another phrase, of another finding and study, on the same image. Without local
  losses LoVT's heat goes through an alignment that nothing has trained. Maps of training boxes see
  no image: what is not above them has learnt nothing from it.
- Linear Dice and AUROC: a linear head on the frozen feature map (on its mean for AUROC), fitted to
  few labelled training studies ({subsets}), since labels
  are what pre-training is to save. Means over the classes with masks, and over {labels}.
- Figure 3 (LoVT, ECCV 2022): cosines of the feature map's cells y, all pairs of an image's cells,
  by their distance over the grid's diagonal, rounded to 0.1; the first {STUDIES} test
  studies. The paper's curves fall up to 0.6 and may rise beyond, between opposite borders.
- What regions learn from the image: each loss between regions and reports once more with the
  images of other studies, in nats. Where that changes nothing, it tells parts of a report apart
  without looking."""


def _draw_comparison(path: Path, config: ComparisonConfig, results: Results) -> None:
    """Write the picture: a column of dots for each metric, and LoVT's Figure 3 beneath.

    A dot is a run, a bar the 95% confidence interval of the mean. Methods without runs keep an
    empty line. Figure 3 is of the rows that the bars are about.
    """
    methods = config.methods
    figure = Figure(figsize=(11, 4.2 + 0.28 * len(methods)), dpi=110, layout="constrained")
    parts = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.2 + 0.28 * len(methods), 3.0))
    above, below = parts[:, 0]
    panels = above.subplots(1, len(PICTURED), sharey=True)
    for axes, metric in zip(panels, PICTURED, strict=True):
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
    axes.set_title(f"{metric.title}{', %' if metric.unit == 'fraction' else ''}", fontsize=10)
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

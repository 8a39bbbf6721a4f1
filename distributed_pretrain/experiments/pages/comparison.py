"""The page of a comparison with its picture, made from its results and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from data_shards.files.atomic import write_text_atomically
from distributed_pretrain.experiments import expectations
from distributed_pretrain.experiments.pages.comparison_picture import draw_comparison
from distributed_pretrain.experiments.results import Results, values_of
from distributed_pretrain.experiments.settings import ComparisonConfig
from distributed_pretrain.experiments.tables import NOTHING, markdown_table, show_values
from distributed_pretrain.measures.grounding_metrics import (
    BLIND_MAPS,
    BLIND_PHRASES,
    BORDER,
    BOX_AREA,
    CNR_GAIN,
    DRAWN_POINTING,
    ENDS,
    FIXED_POINTING,
    FOCAL_POINTING,
    GROUNDING_CNR,
    MS_CXR_CNR,
    POINTING,
    SAME_CELL_OTHER_IMAGE,
    SAME_CELL_OTHER_PHRASE,
    of_map,
    on_crops,
)
from distributed_pretrain.measures.linear_auroc import LINEAR_AUROC
from distributed_pretrain.measures.linear_dice import LINEAR_DICE
from distributed_pretrain.measures.metric import Metric
from distributed_pretrain.measures.other_images import TOLD, of_term
from distributed_pretrain.measures.region_similarity import STUDIES
from distributed_pretrain.measures.retrieval import RECALL_AT_1, RECALL_AT_5

NOT_YET_RUN = "not yet run"
TABLE = (RECALL_AT_1, RECALL_AT_5, FOCAL_POINTING, CNR_GAIN, LINEAR_DICE, LINEAR_AUROC)
# The first four are those of a blind map too.
GROUNDED = (
    POINTING,
    FOCAL_POINTING,
    FIXED_POINTING,
    GROUNDING_CNR,
    CNR_GAIN,
    MS_CXR_CNR,
    BORDER,
    SAME_CELL_OTHER_PHRASE,
    SAME_CELL_OTHER_IMAGE,
    DRAWN_POINTING,
)
GROUNDED_ON_CROPS = (*GROUNDED[:5], SAME_CELL_OTHER_IMAGE, DRAWN_POINTING)


def write_page(config: ComparisonConfig, results: Results, *, command: str) -> str:
    """Write the page and the picture beside it; return the table and the checks as text."""
    picture = config.page.with_suffix(".png")
    config.page.parent.mkdir(parents=True, exist_ok=True)
    draw_comparison(picture, config, results, TABLE[1:])
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
            *_grounding_on_crops(config, results),
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
        days = sorted({run.judged_on for run in runs if run.judged_on})
        when = f", {' to '.join(dict.fromkeys((days[0], days[-1])))}" if days else ""
        lines.append(
            f"{machines}{when}; {seconds / 3600:.1f} core-hours in all. Small encoders from "
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
    table = _grounded_table(config, results, GROUNDED, _as_it_is)
    if table is None:
        return []
    counts = [n for runs in results.values() for n in values_of(runs, BLIND_PHRASES).values()]
    return [
        "## Phrases in their boxes",
        table,
        *_told_areas(results, BOX_AREA),
        *[
            f"Blind maps are means of the boxes of {count:,.0f} training phrases and see no image; "
            "behind them the interval over test studies. What is not above that of category, side "
            "and zone could have read the phrase alone."
            for count in counts[:1]
        ],
    ]


def _grounding_on_crops(config: ComparisonConfig, results: Results) -> list[str]:
    """The same on one square of each image."""
    table = _grounded_table(config, results, GROUNDED_ON_CROPS, on_crops)
    if table is None:
        return []
    return [
        "### On crops",
        table,
        "On one square of each image, 0.4 to all of its area, where knowing the chest tells less.",
        *_told_areas(results, on_crops(BOX_AREA)),
    ]


def _as_it_is(metric: Metric) -> Metric:
    return metric


def _told_areas(results: Results, area: Metric) -> list[str]:
    shares = [share for runs in results.values() for share in values_of(runs, area).values()]
    if not shares:
        return []
    return [f"Boxes fill {area.scale * fmean(shares):.1f} % of what is seen, on average."]


def _grounded_table(
    config: ComparisonConfig,
    results: Results,
    heads: Sequence[Metric],
    seen: Callable[[Metric], Metric],
) -> str | None:
    """A row for each method that grounds, and for each blind map; `seen` is what of an image."""
    rows: list[list[str]] = []
    # These depend on the studies and on the pixels that a model sees of them.
    blind: dict[int, Mapping[str, float]] = {}
    for method in config.methods:
        runs = results.get(method.name, ())
        if values_of(runs, seen(FOCAL_POINTING)):
            wanted = [seen(each) for each in heads]
            shown = [show_values(list(values_of(runs, each).values()), each) for each in wanted]
            rows.append([method.title, *shown])
            blind.setdefault(runs[0].image_size_px, runs[0].metrics)
    if not rows:
        return None
    told = {size: each for size, each in blind.items() if seen(BLIND_PHRASES).name in each}
    for size, figures in sorted(told.items()):
        where = f" ({size} px)" if len(told) > 1 else ""
        for name, title in BLIND_MAPS.items():
            shown = [_with_bounds(seen(each), figures) for each in of_map(name)]
            rows.append([f"blind: {title}{where}", *shown, *[""] * (len(heads) - len(shown))])
    return markdown_table([["", *(each.title for each in heads)], *rows])


def _with_bounds(metric: Metric, figures: Mapping[str, float]) -> str:
    """A figure with the ends of its interval over studies, where it has one."""
    value = figures.get(metric.name)
    if value is None:
        return NOTHING
    ends = [figures.get(f"{metric.name}_{end}") for end in ENDS]
    numbers = [
        f"{metric.scale * each:.{metric.digits}f}" for each in (value, *ends) if each is not None
    ]
    return numbers[0] if len(numbers) < 3 else f"{numbers[0]} ({numbers[1]} to {numbers[2]})"


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
- Mean over seeds ± half of the 95% confidence interval, t std(ddof=1) / sqrt(n) with Student's t,
  in per cent except for the CNR. It tells how far other seeds may lie, not how far other studies
  would: for pointing and CNR that stands behind, by bootstrap over test studies.
- Checks take differences seed by seed. *Holds*: the interval of the difference (the root of the sum
  of the squares of both, where there are both) lies above 0; *within noise*: it holds 0; *does not
  hold*: it lies below.
- All metrics are of {studies} held-out studies, for the weights after the last step.
- R@k: mean of both directions; identical reports count as one. Guessing finds about
  k / studies.
- Phrases in their boxes: pointing is right where a phrase's hottest pixel lies in its box; focal
  findings may lie anywhere in a lung. CNR: contrast of the heat inside its box to outside, signed;
  above that of another phrase, of another finding and study, on the same image. Where the hottest
  pixels are several, the share of them that lies in a box. Heat is what a loss compares: without
  local losses LoVT's is the cosine of the phrase as a report to each region as an image.
- Linear Dice and AUROC: a linear head on the frozen feature map (on its mean for AUROC), fitted to
  few labelled training studies ({subsets}), since labels
  are what pre-training is to save. Means over the classes with masks, and over {labels}.
- Figure 3 (LoVT, ECCV 2022): cosines of the feature map's cells y, all pairs of an image's cells,
  by their distance over the grid's diagonal, rounded to 0.1; the first {STUDIES} test
  studies. The paper's curves fall up to 0.6 and may rise beyond, between opposite borders.
- What regions learn from the image: each loss between regions and reports once more with the
  images of other studies, in nats. Where that changes nothing, it tells parts of a report apart
  without looking."""

"""The page of a comparison, made from its results and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from data_shards.files.atomic import write_text_atomically
from distributed_pretrain.experiments.expectations import Check, check_expectations
from distributed_pretrain.experiments.pages.comparison_charts import draw_comparison
from distributed_pretrain.experiments.results import Results, RunResult, values_of
from distributed_pretrain.experiments.settings import ComparedMethod, ComparisonConfig
from distributed_pretrain.experiments.tables import markdown_table, show_values
from distributed_pretrain.measures.grounding import GROUNDING_CNR
from distributed_pretrain.measures.linear_auroc import LINEAR_AUROC
from distributed_pretrain.measures.linear_dice import LINEAR_DICE
from distributed_pretrain.measures.region_similarity import STUDIES
from distributed_pretrain.measures.retrieval import RECALL_AT_1, RECALL_AT_5

NOT_YET_RUN = "not yet run"
TABLE = (RECALL_AT_1, RECALL_AT_5, GROUNDING_CNR, LINEAR_DICE, LINEAR_AUROC)


def write_page(config: ComparisonConfig, results: Results, *, command: str) -> str:
    """Write the page and the picture beside it; return the table and the checks as text."""
    picture = config.page.with_suffix(".png")
    config.page.parent.mkdir(parents=True, exist_ok=True)
    draw_comparison(picture, config.methods, results)
    checks = check_expectations(config.methods, results)
    text = "\n\n".join(
        [
            f"# {config.title}",
            _introduction(config, results, command),
            _table(config, results),
            f"![Every run, and the similarity of regions by distance]({picture.name})",
            "## Expected from the papers",
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
    head = ["", "learns from", *(metric.title for metric in TABLE), "runs", "CPU s a run"]
    rows = [_row(method, results.get(method.name, ())) for method in config.methods]
    return markdown_table([head, *rows])


def _row(method: ComparedMethod, runs: Sequence[RunResult]) -> list[str]:
    learns_from = "nothing" if method.supervision == "none" else method.supervision
    if not runs:
        return [method.title, learns_from, *[NOT_YET_RUN] * len(TABLE), "0", ""]
    figures = [show_values(list(values_of(runs, metric).values()), metric) for metric in TABLE]
    seconds = fmean(run.pretrain_cpu_seconds + run.evaluate_cpu_seconds for run in runs)
    return [method.title, learns_from, *figures, str(len(runs)), f"{seconds:.0f}"]


def _checks(checks: Sequence[Check]) -> str:
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
- Grounding CNR: contrast of a phrase's heat inside its box to outside, signed. Without local losses
  LoVT's heat goes through an alignment that nothing has trained.
- Linear Dice and AUROC: a linear head on the frozen feature map (on its mean for AUROC), fitted to
  few labelled training studies ({subsets}), since labels
  are what pre-training is to save. Means over the classes with masks, and over {labels}.
- Figure 3 (LoVT, ECCV 2022): cosines of the feature map's cells y, all pairs of an image's cells,
  by their distance over the grid's diagonal, rounded to 0.1; the first {STUDIES} test
  studies. The paper's curves fall up to 0.6 and may rise beyond, between opposite borders."""

"""Of two methods which is the better one, task by task, and whether that is what a paper claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import get_args

from distributed_pretrain.experiments.estimates import (
    Estimate,
    Verdict,
    paired_difference,
    verdict_of,
)
from distributed_pretrain.experiments.suites.settings import Claim
from distributed_pretrain.experiments.suites.tables import Results
from distributed_pretrain.experiments.tables import markdown_table
from distributed_pretrain.measures.metric import Metric

_MARKS: dict[Verdict, str] = {"holds": "**{}**", "does not hold": "*{}*"}


def claims_told(
    claims: Sequence[Claim], metrics: Mapping[str, str], results: Results
) -> tuple[str, str]:
    """Two tables: on how many tasks each claim holds, and the difference on each task.

    `metrics` has the figure of each task. Differences are taken seed by seed.
    """
    verdicts: tuple[Verdict, ...] = get_args(Verdict)
    counts = [["claim", *verdicts, "mean difference"]]
    columns: list[list[str]] = []
    for claim in claims:
        found = {task: _difference(claim, task, name, results) for task, name in metrics.items()}
        cells, told = list[str](), Counter[Verdict]()
        for task, difference in found.items():
            verdict, cell = _told(difference, metrics[task])
            told[verdict] += 1
            cells.append(cell)
        means = [each.mean for each in found.values() if each is not None]
        mean = f"{100 * sum(means) / len(means):+.1f}" if means else ""
        counts.append([claim.says, *(str(told[each]) for each in verdicts), mean])
        columns.append(cells)
    heads = ["task", "figure", *(claim.says for claim in claims)]
    rows = [list(row) for row in zip(metrics, metrics.values(), *columns, strict=True)]
    return markdown_table(counts), markdown_table([heads, *rows])


def _difference(claim: Claim, task: str, metric: str, results: Results) -> Estimate | None:
    values = []
    for method in (claim.method, claim.than):
        result = results.get(method, {}).get(task)
        runs = {} if result is None else result.runs
        values.append({int(seed): each[metric] for seed, each in runs.items() if metric in each})
    return paired_difference(*values)


def _told(difference: Estimate | None, name: str) -> tuple[Verdict, str]:
    if difference is None:
        return "not yet run", "not yet run"
    metric = Metric(name, name)
    verdict = verdict_of(difference, metric)
    shown = difference.show_difference(metric).removesuffix(" points")
    return verdict, _MARKS.get(verdict, "{}").format(shown)

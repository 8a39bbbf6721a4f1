"""The papers' tables as Markdown, LaTeX, CSV and HTML, and a page of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from data_shards.profiles import load_profile
from distributed_pretrain.experiments.estimates import estimate, normal_half_width
from distributed_pretrain.experiments.suites.claims import claims_told
from distributed_pretrain.experiments.suites.settings import SuiteConfig
from distributed_pretrain.experiments.suites.tables import (
    BEST,
    SECOND,
    Cell,
    FilledTable,
    Line,
    PublishedTable,
    Results,
    filled,
    read_suite,
)
from distributed_pretrain.experiments.tables import markdown_table
from distributed_pretrain.pages.html import render

NOT_RUN = "not yet run"


def in_markdown(found: FilledTable) -> str:
    """Each cell: what is published, and ours under it; best bold, second underlined."""

    def show(cell: Cell | None, otherwise: str) -> str:
        if cell is None:
            return otherwise
        mark = {BEST: "**{}**", SECOND: "<u>{}</u>"}.get(cell.rank, "{}")
        return mark.format(cell.text) + (f" (n={cell.runs})" if cell.runs else "")

    def both(line: Line) -> list[str]:
        published = [show(cell, "-") for cell in line.published]
        measured = [show(cell, NOT_RUN) for cell in line.measured]
        if not line.is_published:
            return measured
        if not line.is_measured:
            return published
        return list(map("<br>".join, zip(published, measured, strict=True)))

    rows = [["", *(column.title for column in found.table.columns)]]
    for title, lines in found.groups:
        rows.append([f"*{title}*", *[""] * len(found.table.columns)])
        rows += [[_titled(line), *both(line)] for line in lines]
    return markdown_table(rows)


def in_latex(found: FilledTable) -> str:
    """A tabular of booktabs, ours under what is published; it needs no package but that."""

    def show(cell: Cell | None, otherwise: str) -> str:
        if cell is None:
            return otherwise
        mark = {BEST: r"\textbf{{{}}}", SECOND: r"\underline{{{}}}"}.get(cell.rank, "{}")
        runs = f" ($n={cell.runs}$)" if cell.runs else ""
        return mark.format(cell.text.replace(" ± ", r"$\pm$")) + runs

    columns = found.table.columns
    lines = [rf"\begin{{tabular}}{{l{'c' * len(columns)}}}", r"\toprule"]
    lines += [_latex_row(["", *(_escaped(column.title) for column in columns)]), r"\midrule"]
    for title, of_group in found.groups:
        lines.append(rf"\multicolumn{{{len(columns) + 1}}}{{l}}{{\emph{{{_escaped(title)}}}}} \\")
        for line in of_group:
            title, published = _escaped(_titled(line)), [show(cell, "-") for cell in line.published]
            ours = [show(cell, NOT_RUN) for cell in line.measured]
            lines.append(_latex_row([title, *(published if line.is_published else ours)]))
            if line.is_published and line.is_measured:
                lines.append(_latex_row([r"\quad here", *ours]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def in_csv(found: FilledTable) -> str:
    """A line a method and task: published and measured, numbers as they are, empty if unknown."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["group", "method", "task", "metric", "published", "published_half_width"]
    writer.writerow([*head, "measured", "measured_half_width", "runs"])
    for title, lines in found.groups:
        for line in lines:
            cells = zip(found.table.columns, line.published, line.measured, strict=True)
            for column, published, measured in cells:
                theirs = ("", "") if published is None else (published.mean, published.half_width)
                ours: tuple[object, ...] = ("", "", "")
                if measured is not None:
                    ours = (measured.mean, measured.half_width, measured.runs)
                writer.writerow([title, line.title, column.task, column.metric, *theirs, *ours])
    return text.getvalue()


def in_html(found: FilledTable) -> str:
    """A page of its own: what is published, and ours under it; best bold, second underlined."""
    return render(
        "table.html.jinja",
        table=found.table,
        groups=found.groups,
        BEST=BEST,
        SECOND=SECOND,
        NOT_RUN=NOT_RUN,
        titled=_titled,
        zip=partial(zip, strict=True),
    )


WRITERS: dict[str, Callable[[FilledTable], str]] = {
    ".tex": in_latex,
    ".csv": in_csv,
    ".html": in_html,
}


def table_files(config: SuiteConfig) -> dict[Path, str]:
    """Each table in LaTeX, as CSV and HTML, by the file in the suite's folder that it is for."""
    results = read_suite(config)
    tables = {
        path: filled(load_profile(PublishedTable, path), results, config.rows)
        for path in config.tables
    }
    return {
        config.run_folder / f"{path.stem}{suffix}": write(table)
        for path, table in tables.items()
        for suffix, write in WRITERS.items()
    }


def suite_page(config: SuiteConfig) -> str:
    """The tables as Markdown, what of the claims holds, and what was run on what."""
    results = read_suite(config)
    parts = [f"# {config.title}", *map(str.strip, config.notes)]
    tables = [load_profile(PublishedTable, path) for path in config.tables]
    for table in tables:
        parts += [
            f"## {table.title}",
            f"Per cent. Published is what the rows of the paper have ({table.source.strip()}); "
            "measured here, under it or in rows of its own, mean ± Student's 95 % interval over "
            f"n seeds, or *{NOT_RUN}*. Of each of the two the best is bold and the second "
            "underlined.",
            in_markdown(filled(table, results, config.rows)),
        ]
    shown = {column.task: column.metric for table in tables for column in table.columns}
    if config.claims:
        counts, each = claims_told(config.claims, shown, results)
        parts += [
            "## What of the papers' claims holds here",
            f"By how much, in points, seed by seed, on the {len(shown)} tasks of the tables: mean "
            "± Student's 95 % interval. A claim **holds** where all of the interval is on its "
            "side, and does *not hold* where all is on the other; else it is within noise.",
            counts,
            each,
        ]
    parts += ["## What was run on what", _runs_table(config, results, shown)]
    return "\n\n".join(parts) + "\n"


def _runs_table(config: SuiteConfig, results: Results, metrics: Mapping[str, str]) -> str:
    """A row a method and task that was run: shards, share, rate, runs, and both intervals.

    `metrics` are the figures that the tables show, by task; of others the one they are judged by.
    """
    rows = [["method", "task", "shards", "share", "rate", "figure", "mean", "± t", "± 1.96", "n"]]
    for method, of_tasks in results.items():
        for task in config.tasks:
            result = of_tasks.get(task.name)
            if result is None:
                continue
            metric = metrics.get(task.name, result.made_with["training"]["best_metric"])
            values = [100 * value for value in result.values_of(metric)]
            found = estimate(values) if values else None
            half = None if found is None else found.half_width
            normal = normal_half_width(values)
            shown = [NOT_RUN if found is None else f"{found.mean:.1f}"]
            shown += ["" if each is None else f"{each:.1f}" for each in (half, normal)]
            rate = "" if result.learning_rate is None else f"{result.learning_rate:g}"
            data = result.made_with["data"]
            shards, share = Path(data["shards"]).name, f"{data['fraction']:g}"
            rows.append([method, task.name, shards, share, rate, metric, *shown, str(len(values))])
    return markdown_table(rows) if len(rows) > 1 else "Nothing yet."


def _titled(line: Line) -> str:
    """The title of a row, which says once that nothing of a published one was run."""
    alone = line.is_published and not line.is_measured
    return f"{line.title} ({NOT_RUN})" if alone else line.title


def _latex_row(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _escaped(text: str) -> str:
    return text.replace("%", r"\%").replace("_", r"\_").replace("&", r"\&")

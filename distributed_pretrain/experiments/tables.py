"""Many runs in figures: means over seeds with 95% intervals, what differences are worth, tables.

Nothing here needs torch: the launcher shows sweeps by it.
"""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal, TypeAlias

from data_shards.errors import InputError
from data_shards.files.atomic import write_bytes_atomically, write_text_atomically
from distributed_pretrain.measures.metric import Metric

Verdict = Literal["holds", "within noise", "does not hold", "not yet run"]
Row: TypeAlias = Mapping[str, str | float | None]
NOTHING = "-"
# More would not fit a line.
MOST_FIGURES = 6
# Student's t, 97.5 %, of 1 to 30 degrees of freedom.
_STUDENT = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


@dataclass(frozen=True)
class Estimate:
    """A mean with half the width of its 95% confidence interval, None for a single value."""

    mean: float
    half_width: float | None

    def show(self, metric: Metric | None = None) -> str:
        """Mean ± half the interval, in the metric's unit (per cent without its sign).

        Without a metric, as in files: the mean with four digits, the interval with two.
        """
        numbers = [(self.mean, ".4g")]
        if self.half_width is not None:
            numbers.append((self.half_width, ".2g"))
        if metric is not None:
            numbers = [(metric.scale * each, f".{metric.digits}f") for each, _ in numbers]
        return " ± ".join(format(*each) for each in numbers)

    def show_difference(self, metric: Metric) -> str:
        """The same with its sign, in percentage points for fractions."""
        sign = "+" if self.mean >= 0 else ""
        return f"{sign}{self.show(metric)}{' points' if metric.unit == 'fraction' else ''}"


def estimate(values: Sequence[float]) -> Estimate:
    """Mean ± t std(ddof=1) / sqrt(n), t of n - 1 degrees of freedom; at least one value.

    LoVT's tables take 1.96 in place of t, which for its five runs should be 2.78.
    """
    freedom = len(values) - 1
    half_width = student(freedom) * stdev(values) / math.sqrt(len(values)) if freedom else None
    return Estimate(fmean(values), half_width)


def normal_half_width(values: Sequence[float]) -> float | None:
    """LoVT's half interval, 1.96 std(ddof=1) / sqrt(n), too narrow for few runs; None of one."""
    return 1.96 * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def student(freedom: int) -> float:
    """The 97.5 % point of Student's t: within ± that lie 95 %."""
    # Beyond the table the first terms of its series by 1 / freedom: wrong by less than 0.003.
    return _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else 1.96 + 2.372 / freedom


def paired_difference(better: Mapping[int, float], worse: Mapping[int, float]) -> Estimate | None:
    """`better` less `worse`, seed by seed; None without a common seed."""
    common = sorted(better.keys() & worse.keys())
    return estimate([better[seed] - worse[seed] for seed in common]) if common else None


def verdict_of(difference: Estimate, metric: Metric) -> Verdict:
    """Whether a difference of `metric`, expected to be for the better, is.

    `within noise`: its interval holds 0, or there is none, of a single seed.
    """
    if difference.half_width is None or abs(difference.mean) <= difference.half_width:
        return "within noise"
    return "holds" if metric.gain(difference.mean) > 0 else "does not hold"


def show_values(values: Sequence[float], metric: Metric | None = None) -> str:
    """The estimate of some runs' values; a dash where there are none."""
    return estimate(values).show(metric) if values else NOTHING


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Lines for a terminal, the columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """The first row as the head; a bar inside a cell ends none."""
    head, *others = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *others]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def runs_table(rows: Sequence[Row], *, values: Sequence[str]) -> str:
    """Lines for reading: runs that differ in their seed alone are one line, mean ± interval.

    `values` are the keys that tell the rows apart; of the others but `task` and `state`, the first
    `MOST_FIGURES` that any row has are shown.
    """
    by = [key for key in values if key != "seed"]
    figures = [
        key
        for key in (rows[0] if rows else {})
        if key not in ("task", "state", *values) and any(row[key] is not None for row in rows)
    ][:MOST_FIGURES]
    groups: defaultdict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(str(row[key]) for key in by)].append(row)
    table = [[*by, "finished", *figures]]
    for key, members in groups.items():
        finished = sum(row["state"] == "finished" for row in members)
        numbers = [
            [each for row in members if isinstance(each := row[name], int | float)]
            for name in figures
        ]
        table.append([*key, f"{finished} of {len(members)}", *map(show_values, numbers)])
    return text_table(table)


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write a `.csv` or a `.parquet`. Raises InputError for another ending, or without pyarrow."""
    if path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
        write_text_atomically(path, text.getvalue())
        return
    if path.suffix != ".parquet":
        raise InputError(f"{path}: results are written to a .csv or a .parquet")
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError("Parquet needs pyarrow: `pip install pyarrow`, or write a .csv") from error
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), sink)
    write_bytes_atomically(path, sink.getvalue())

"""What the tasks of a sweep came to: one row each, as CSV or Parquet, and a table to read."""

from __future__ import annotations

import csv
import io
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from data_shards.errors import InputError
from data_shards.files.atomic import write_bytes_atomically, write_text_atomically
from launch.invocation import read_invocation
from launch.records import newest_job
from launch.sweep import read_sweep, states_of_points

Row: TypeAlias = dict[str, str | float | None]
# What a table shows of a task's figures where all would not fit a line.
_SHOWN_FIGURES = 6


def collect(folder: Path) -> list[Row]:
    """A row a task: `task`, `state`, what it was told apart by, and its figures.

    Of a pre-training these are the validation's at its best step; of an evaluation all.
    """
    rows = []
    for point, state in states_of_points(folder, read_sweep(folder)):
        row: Row = {"task": point.name, "state": state or "not submitted", **point.values}
        row.update(_figures(folder / point.name))
        rows.append(row)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return [{key: row.get(key) for key in columns} for row in rows]


def write_results(rows: Sequence[Row], path: Path) -> None:
    """Write a `.csv` or a `.parquet`. Raises InputError for another ending, or without pyarrow."""
    if path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
        write_text_atomically(path, text.getvalue())
    elif path.suffix == ".parquet":
        write_bytes_atomically(path, _parquet(rows))
    else:
        raise InputError(f"{path}: results are written to a .csv or a .parquet")


def results_table(rows: Sequence[Row], *, values: Sequence[str]) -> str:
    """Lines for reading: tasks that differ in their seed alone are one line, mean +- deviation."""
    by = [key for key in values if key != "seed"]
    figures = [
        key
        for key in (rows[0] if rows else {})
        if key not in ("task", "state", *values) and any(row[key] is not None for row in rows)
    ][:_SHOWN_FIGURES]
    groups: defaultdict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(str(row[key]) for key in by)].append(row)
    table = [[*by, "finished", *figures]]
    for key, members in groups.items():
        finished = sum(row["state"] == "finished" for row in members)
        shown = [_spread([row[name] for row in members]) for name in figures]
        table.append([*key, f"{finished} of {len(members)}", *shown])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in table
    )


def _spread(values: Sequence[str | float | None]) -> str:
    numbers = [each for each in values if isinstance(each, (int, float))]
    if not numbers:
        return "-"
    mean = f"{statistics.fmean(numbers):.4g}"
    return mean if len(numbers) < 2 else f"{mean} +- {statistics.stdev(numbers):.2g}"


def _figures(folder: Path) -> dict[str, float]:
    job = newest_job(folder)
    return {} if job is None else read_invocation(job.record().command, frozen=job.profile).figures


def _parquet(rows: Sequence[Row]) -> bytes:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError("Parquet needs pyarrow: `pip install pyarrow`, or write a .csv") from error
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), sink)
    return sink.getvalue()

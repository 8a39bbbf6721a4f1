"""Many runs in tables: for a terminal, in Markdown, in files.

Nothing here needs torch: the launcher shows sweeps by it.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from data_shards.errors import InputError
from data_shards.files.atomic import write_bytes_atomically, write_text_atomically
from distributed_pretrain.experiments.estimates import estimate
from distributed_pretrain.measures.metric import Metric

Row: TypeAlias = Mapping[str, str | float | None]
NOTHING = "-"
# More would not fit a line.
MOST_FIGURES = 6


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

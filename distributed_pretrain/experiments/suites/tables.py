"""The papers' tables, in their rows and columns: what was measured here beside what they print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Self

from pydantic import Field, model_validator

from data_shards.profiles import Config
from distributed_pretrain.downstream.results import TaskResult, stored_result
from distributed_pretrain.experiments.estimates import estimate
from distributed_pretrain.experiments.suites.settings import SuiteConfig

# Of several figures in a column of the same kind.
BEST, SECOND = "first", "second"
_PER_CENT = 100.0


class PublishedRow(Config):
    """A method with its figures in per cent: a mean and half its interval, or a mean alone."""

    method: str
    title: str
    published: tuple[Annotated[tuple[float, ...], Field(min_length=1, max_length=2)], ...]


class PublishedGroup(Config):
    """Rows under a heading."""

    title: str
    rows: tuple[PublishedRow, ...]


class PublishedColumn(Config):
    """A task of a suite, and which of its figures is shown."""

    task: str
    title: str
    metric: str


class PublishedTable(Config):
    """A table of a paper, as it stands there."""

    title: str
    source: str
    columns: tuple[PublishedColumn, ...]
    groups: tuple[PublishedGroup, ...]

    @model_validator(mode="after")
    def _rows_are_whole(self) -> Self:
        for row in self.rows:
            if len(row.published) != len(self.columns):
                raise ValueError(
                    f"{row.method}: {len(row.published)} figures for {len(self.columns)} columns"
                )
        return self

    @property
    def rows(self) -> tuple[PublishedRow, ...]:
        """Those of all groups."""
        return tuple(row for group in self.groups for row in group.rows)


@dataclass(frozen=True)
class Cell:
    """A figure in per cent, with half of its interval and the number of runs where known."""

    mean: float
    half_width: float | None = None
    runs: int | None = None
    rank: str = ""

    @property
    def text(self) -> str:
        """Without its rank."""
        shown = f"{self.mean:.1f}"
        return shown if self.half_width is None else f"{shown} ± {self.half_width:.1f}"


@dataclass(frozen=True)
class Line:
    """A row of a table: what is published of a method, and what was measured here."""

    title: str
    published: tuple[Cell | None, ...]
    measured: tuple[Cell | None, ...]

    @property
    def is_published(self) -> bool:
        """Whether a paper has a figure of it."""
        return any(self.published)

    @property
    def is_measured(self) -> bool:
        """Whether any of it was run here."""
        return any(self.measured)


@dataclass(frozen=True)
class FilledTable:
    """A paper's table with a line for each of its methods, and for each of ours besides."""

    table: PublishedTable
    groups: tuple[tuple[str, tuple[Line, ...]], ...]


Results = Mapping[str, Mapping[str, TaskResult]]


def read_suite(config: SuiteConfig) -> dict[str, dict[str, TaskResult]]:
    """What is known of each method and task in the suite's folder; nothing is held against it.

    Raises InputError for a damaged file.
    """
    found: dict[str, dict[str, TaskResult]] = {}
    if not config.run_folder.is_dir():
        return found
    for folder in sorted(each for each in config.run_folder.iterdir() if each.is_dir()):
        for task in config.tasks:
            result = stored_result(folder / task.name)
            if result is not None:
                found.setdefault(folder.name, {})[task.name] = result
    return found


def filled(
    table: PublishedTable, results: Results, rows: Mapping[str, str] = MappingProxyType({})
) -> FilledTable:
    """The table with our figures: Student's interval, the best and the second best of each kind.

    `rows` are titles of methods of ours by their names, which come first, run or not.
    """
    by_method = {row.method: row for row in table.rows}
    published = _ranked({row.method: tuple(map(_printed, row.published)) for row in table.rows})
    ours = {
        method: tuple(_measured(of_tasks.get(column.task), column) for column in table.columns)
        for method, of_tasks in results.items()
    }
    measured = _ranked({method: cells for method, cells in ours.items() if any(cells)})
    nothing = (None,) * len(table.columns)

    def line(row: PublishedRow) -> Line:
        ours = nothing if row.method in rows else measured.get(row.method, nothing)
        return Line(row.title, published[row.method], ours)

    groups = [(group.title, tuple(map(line, group.rows))) for group in table.groups]
    own = dict(rows) | {each: each for each in measured if each not in {**by_method, **rows}}
    if own:
        lines = (Line(title, nothing, measured.get(name, nothing)) for name, title in own.items())
        here = ("Measured here", tuple(lines))
        groups.insert(0 if rows else len(groups), here)
    return FilledTable(table, tuple(groups))


def _printed(figures: tuple[float, ...]) -> Cell:
    return Cell(figures[0], figures[1] if len(figures) > 1 else None)


def _measured(result: TaskResult | None, column: PublishedColumn) -> Cell | None:
    values = result.values_of(column.metric) if result is not None else []
    if not values:
        return None
    found = estimate([_PER_CENT * value for value in values])
    return Cell(found.mean, found.half_width, len(values))


def _ranked(rows: Mapping[str, tuple[Cell | None, ...]]) -> dict[str, tuple[Cell | None, ...]]:
    """The same with the highest and second highest mean of each column marked, as printed."""
    columns = list(zip(*rows.values(), strict=True))
    best = [sorted({round(c.mean, 1) for c in column if c}, reverse=True) for column in columns]

    def marked(cell: Cell | None, highest: Sequence[float]) -> Cell | None:
        if cell is None or len(highest) < 2:
            return cell
        ranks = {highest[0]: BEST, highest[1]: SECOND}
        return Cell(cell.mean, cell.half_width, cell.runs, ranks.get(round(cell.mean, 1), ""))

    return {
        method: tuple(marked(cell, highest) for cell, highest in zip(cells, best, strict=True))
        for method, cells in rows.items()
    }

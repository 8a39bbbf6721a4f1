"""A number that is measured: its name in files, its title in tables, and which way is better."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from data_shards.errors import InputError
from data_shards.files.atomic import move, write_text_atomically

_FIGURES = TypeAdapter(dict[str, float])
Unit = Literal["fraction", "number"]
Direction = Literal["high", "low"]


@dataclass(frozen=True)
class Metric:
    """One number. Fractions are printed in per cent; `headline` ones in a run's own words too."""

    name: str
    title: str
    unit: Unit = "fraction"
    better: Direction = "high"
    headline: bool = False

    @property
    def scale(self) -> float:
        """From the number in a file to the one in a table."""
        return 100.0 if self.unit == "fraction" else 1.0

    @property
    def digits(self) -> int:
        """Digits behind the point, in a table."""
        return 1 if self.unit == "fraction" else 2

    def show(self, value: float) -> str:
        """The value with its unit."""
        shown = f"{self.scale * value:.{self.digits}f}"
        return f"{shown} %" if self.unit == "fraction" else shown

    def of(self, klass: str) -> Metric:
        """That of one class: of "Pleural Effusion", `auroc` is `auroc_pleural_effusion`."""
        name = f"{self.name}_{klass.lower().replace(' ', '_')}"
        return replace(self, name=name, title=klass, headline=False)

    def of_each(self, classes: Iterable[str]) -> tuple[Metric, ...]:
        """This one, which is their mean, and that of each class."""
        return (self, *map(self.of, classes))

    def mean_and_each(self, classes: Sequence[str], values: Sequence[float]) -> dict[str, float]:
        """By name: the mean over the classes that have one (NaN: none) and theirs; or nothing."""
        each = {
            self.of(klass).name: value
            for klass, value in zip(classes, values, strict=True)
            if not math.isnan(value)
        }
        return {self.name: sum(each.values()) / len(each), **each} if each else {}

    def gain(self, change: float) -> float:
        """A change, positive where it is for the better."""
        return change if self.better == "high" else -change

    def improves(self, value: float, on: float, *, by: float = 0.0) -> bool:
        """Whether `value` is better than `on` by more than `by`."""
        return self.gain(value - on) > by


def mean_figures(every: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of several runs the mean of each figure that all of them have."""
    names = [name for name in every[0] if all(name in each for each in every)] if every else []
    return {name: sum(each[name] for each in every) / len(every) for name in names}


def write_figures(figures: Mapping[str, float], path: Path) -> None:
    """Print what was measured, then write it to `path`; other figures there are kept beside it."""
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:{width}s} {value:8.4f}", flush=True)
    keep_figures(figures, path)
    print(f"written to {path}", file=sys.stderr)


def keep_figures(figures: Mapping[str, float], path: Path) -> None:
    """Write what was measured to `path`; other figures there are kept beside it."""
    text = json.dumps(figures, indent=1) + "\n"
    if path.exists() and path.read_bytes() != text.encode():
        before = path.with_suffix(".before.json")
        move(path, before)
        print(f"other figures were there, and are now in {before}", file=sys.stderr)
    write_text_atomically(path, text)


def read_figures(path: Path) -> dict[str, float]:
    """What `write_figures` wrote; empty before. Raises InputError for any other file."""
    if not path.exists():
        return {}
    try:
        return _FIGURES.validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        raise InputError(
            f"{path}: no figures by name: delete it, and evaluate the run again"
        ) from error

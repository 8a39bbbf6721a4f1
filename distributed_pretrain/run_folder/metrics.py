"""What a line of a run's metrics is: a step, a split, and numbers by name, some of them timings."""

from __future__ import annotations

from typing import Any

from data_shards.files.json_lines import Line

_TIMING_SUFFIXES = ("_per_second", "_seconds")
_TIMING_NAMES = frozenset({"memory_bytes", "data_wait_share", "mfu", "padding_share"})


def is_timing(name: str) -> bool:
    """Whether a metric may differ between two otherwise identical runs."""
    return name in _TIMING_NAMES or name.endswith(_TIMING_SUFFIXES)


def is_metrics_line(line: Line) -> bool:
    """Whether it is one of `metrics.jsonl`: a step, a split, and numbers by name."""
    numbers = (value for name, value in line.items() if name not in ("step", "split"))
    named = is_count(line.get("step")) and isinstance(line.get("split"), str)
    return named and all(_is_number(each) for each in numbers)


def is_later(earlier: Line, line: Line) -> bool:
    """Whether a line of `metrics.jsonl` may follow another: each step trains, then validates."""
    (one, its), (step, split) = ((each["step"], each["split"]) for each in (earlier, line))
    return bool(step > one or (step == one and its == "train" and split != its))


def is_count(value: Any) -> bool:
    """Whether it is a whole number, as many as there may be of steps or samples."""
    return type(value) is int and 0 <= value < 2**53


def _is_number(value: Any) -> bool:
    return is_count(abs(value)) if type(value) is int else type(value) is float
